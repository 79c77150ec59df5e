"""What an account has, owes and will need."""

from app.page.account.page import ROUTES

__all__ = ["ROUTES"]
