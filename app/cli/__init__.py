"""The command line. Thin: options in, one call, one document out."""

import gc

gc.set_threshold(200_000)
"""What imports make stays, and to look for garbage among it is a tenth of a small command. What works
for longer sets GARBAGE_AFTER when it begins."""

GARBAGE_AFTER = 20_000
"""Objects made and not freed; Python's own 700 is for programs that are small all their life."""
