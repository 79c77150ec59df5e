"""Every table of the page in full, as a file."""

from app.page.downloads.page import ROUTES

__all__ = ["ROUTES"]
