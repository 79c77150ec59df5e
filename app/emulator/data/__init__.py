"""Facts of the provider as data: editions, engines, places, prices, plans."""
