"""Who changed what, and when."""

from app.page.actions.page import ROUTES

__all__ = ["ROUTES"]
