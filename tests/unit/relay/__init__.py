"""Rules of the relay, without a database."""
