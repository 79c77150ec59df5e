"""Commands that prove what the books say: certificate, dispute, verify."""
