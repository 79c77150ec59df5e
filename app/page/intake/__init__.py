"""What the receiver refused, and what could not be settled."""

from app.page.intake.page import ROUTES

__all__ = ["ROUTES"]
