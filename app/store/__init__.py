"""The truth: every write and every read of the database."""

import app.store.async_core  # noqa: F401 - first: it decides how SQLAlchemy is loaded
from app.store.database import Database
from app.store.store import Store

__all__ = ["Database", "Store"]
