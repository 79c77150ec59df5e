"""The engines as data, and the check of a request against the rules of its engine. Pure."""
