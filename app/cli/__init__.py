"""The command line. Thin: options in, one call, one document out."""

import gc

gc.set_threshold(200_000)
"""What imports make stays, and to look for garbage among it is a tenth of a small command. `with_store` sets
what holds while there is work."""
