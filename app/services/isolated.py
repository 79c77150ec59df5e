"""Items of a loop, each by itself: one that fails, for whatever reason, stops none of the others."""

import contextlib
from collections.abc import Iterator

from app.ports import StoreUnavailable


class Isolated:
    """`with each.alone(): …` for every item, and `each.finish()` once all had their turn."""

    def __init__(self) -> None:
        self.failed: list[Exception] = []

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """What is raised in here is kept until `finish`."""
        try:
            yield
        except Exception as error:
            self.failed.append(error)

    def finish(self) -> None:
        """Raise what was kept: a single error as itself, and so an absent database."""
        failed, self.failed = self.failed, []
        if not failed:
            return
        if len(failed) == 1 or all(isinstance(error, StoreUnavailable) for error in failed):
            raise failed[0]
        raise ExceptionGroup(f"{len(failed)} items failed", failed)
