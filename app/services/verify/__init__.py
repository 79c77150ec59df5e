"""Verifying the books: all that can be derived is derived again and compared. Changes nothing."""
