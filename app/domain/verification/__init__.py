"""Deriving stored rows again and comparing them. Pure."""
