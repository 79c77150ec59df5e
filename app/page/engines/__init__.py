"""How engines do, over seven days."""

from app.page.engines.page import ROUTES

__all__ = ["ROUTES"]
