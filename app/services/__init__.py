"""Use cases: they import the domain and the ports, nothing else of ours."""
