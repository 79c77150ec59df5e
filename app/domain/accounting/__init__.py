"""Balances, billing cycles, drift and forecast of an account. Pure."""
