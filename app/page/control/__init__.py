"""What a person does with one run or one task: pause, resume, cancel, retry."""

from app.page.control.page import ROUTES

__all__ = ["ROUTES"]
