"""Measurements against references in the same run: `make bench`, docs/performance.md."""
