"""What needs explaining, and the archive for the provider's support."""

from app.page.findings.page import ROUTES

__all__ = ["ROUTES"]
