"""Training samples: prepared shards, their order, and what is drawn for each."""
