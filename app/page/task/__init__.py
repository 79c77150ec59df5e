"""One task: its course and its money on one line, with the evidence."""

from app.page.task.page import ROUTES

__all__ = ["ROUTES"]
