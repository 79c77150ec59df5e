"""The emulator over HTTP: routes, authentication, faults of the connection."""
