"""What one machine runs by itself: the embedded Valkey, child processes and their supervisor."""
