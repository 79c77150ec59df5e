"""The receiver of deliveries: read, verify, commit, answer 2xx."""
