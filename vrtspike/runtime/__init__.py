"""The process and its machine: Ray, memory, progress and errors."""
