"""The process and the machine: Ray, memory, progress."""
