"""One run: how far it is, what it costs, what its money bought, and its tasks."""

from app.page.run.page import ROUTES

__all__ = ["ROUTES"]
