"""Checks on a request, as the provider makes them."""
