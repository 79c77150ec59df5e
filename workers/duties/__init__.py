"""What a worker does on a timer, beside its jobs. None of it needs Redis."""
