"""Image quality metrics, and the losses that training minimises."""
