"""Every write of the database, by subject. Each is one transaction."""
