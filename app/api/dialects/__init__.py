"""Groups of routes that speak as other services do, for their clients."""
