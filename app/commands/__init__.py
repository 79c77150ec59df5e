"""The commands, by what they are about. Thin: options in, one call, one document out."""
