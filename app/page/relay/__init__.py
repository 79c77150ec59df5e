"""Where results are pushed to, and how that goes."""

from app.page.relay.page import ROUTES

__all__ = ["ROUTES"]
