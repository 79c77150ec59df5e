"""Faults that alerts are about, brought about in real processes."""
