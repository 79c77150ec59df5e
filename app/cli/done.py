"""What a command has done that stands, whatever becomes of the rest of it: told on standard error when its
answer is lost, so that nobody does it again because of that."""

_done: list[str] = []


def begin() -> None:
    """A command begins: it has done nothing."""
    _done.clear()


def done(what: str) -> None:
    """From here on `what` is so, a sentence that names it by its id."""
    _done.append(what)


def all_done() -> list[str]:
    """What was done so far, in its order."""
    return list(_done)
