"""`tallyhook init`: the first file of settings."""
