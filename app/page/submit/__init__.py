"""A file of prompts becomes a run."""

from app.page.submit.page import ROUTES

__all__ = ["ROUTES"]
