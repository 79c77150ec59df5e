"""Deliveries that have left the database: blocks of a day in object storage. Knows no table."""

from app.archive.archive import Archive, NewBlock

__all__ = ["Archive", "NewBlock"]
