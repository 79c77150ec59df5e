"""Faults of machines, servers and processes under load; `__main__` says how."""
