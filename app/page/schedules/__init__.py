"""Prompt files that run every so often."""

from app.page.schedules.page import ROUTES

__all__ = ["ROUTES"]
