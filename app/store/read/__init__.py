"""Reads of the database, by subject. Nothing here changes a figure."""
