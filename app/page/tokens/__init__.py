"""Who may use the API and this page."""

from app.page.tokens.page import ROUTES

__all__ = ["ROUTES"]
