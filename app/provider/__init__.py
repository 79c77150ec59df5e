"""The provider as it is on the wire. Adapters: they import the domain and the ports, no service."""
