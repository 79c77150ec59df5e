"""Keeps requests below the provider's rate limits, for all processes of an account together."""
