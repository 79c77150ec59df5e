"""What is worth a notice, how often, and how it is signed. Pure."""
