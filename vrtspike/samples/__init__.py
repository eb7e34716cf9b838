"""Training samples: prepared shards, the order of samples, and random augmentation."""
