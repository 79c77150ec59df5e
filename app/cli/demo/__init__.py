"""The command demo: the whole pipeline on one machine, and the books compared."""
