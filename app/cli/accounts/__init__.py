"""Commands about an account: its cycle, its balance, its books, its forecast."""
