"""The truth: every write and every read of the database."""

from app.store.database import Database
from app.store.store import Store

__all__ = ["Database", "Store"]
