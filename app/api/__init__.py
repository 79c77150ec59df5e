"""The API: what a person, or another program, asks for over HTTP. One table of routes makes all of it."""
