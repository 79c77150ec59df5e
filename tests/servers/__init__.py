"""Real servers for tests, started from their wheels on free loopback ports. Nothing here is shipped."""
