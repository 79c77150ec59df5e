"""What a worker does on a timer, in parallel with its jobs. None of it needs Redis."""
