"""The command line. Thin: options in, one call, one document out."""
