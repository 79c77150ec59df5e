"""Something done to all that match a filter."""

from app.page.bulk.page import ROUTES

__all__ = ["ROUTES"]
