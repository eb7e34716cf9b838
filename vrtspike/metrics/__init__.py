"""How near restored frames are to sharp ones: metrics, and losses that training minimises."""
