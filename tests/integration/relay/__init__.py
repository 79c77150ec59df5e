"""Results pushed, to real receivers, from a real store of each kind."""
