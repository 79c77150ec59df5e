"""What a certificate and a dispute say. Pure."""
