"""The first page: runs and how they do."""

from app.page.overview.page import ROUTES

__all__ = ["ROUTES"]
