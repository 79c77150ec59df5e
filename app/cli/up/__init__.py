"""`tallyhook up`: all that one machine needs, in one terminal."""
