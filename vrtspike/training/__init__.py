"""Training: the step, what it is made of, and the job that runs it on Ray."""
