"""The truth: every write and every read of the database (DESIGN section 6)."""

from app.store.database import Database
from app.store.store import Store

__all__ = ["Database", "Store"]
