"""Deliveries that have left the database: blocks of a day in object storage. Knows no table."""

from app.archive.archive import Archive, NewBlock
from app.archive.block import BlockDamaged

__all__ = ["Archive", "BlockDamaged", "NewBlock"]
