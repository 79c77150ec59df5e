"""Says how many answers a command could not give, because their bodies are not stored any more."""

from collections import Counter
from collections.abc import AsyncIterator

import typer

from app.cli.terminal import error_console
from app.domain.text import agreeing
from app.domain.time_format import iso_day
from app.errors import FAILED
from app.store.read.exports import PRUNED, Row


class MissingAnswers:
    """Counts rows whose answer is gone, by what is said of it."""

    def __init__(self) -> None:
        self._notes: Counter[str] = Counter()
        self._answers = 0

    async def noted(self, rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
        """The same rows."""
        async for row in rows:
            note = row.get("response_note")
            self._answers += note is not None or row.get("response") is not None
            if note is not None:
                self._notes[note] += 1
            yield row

    @property
    def count(self) -> int:
        return self._notes.total()

    def exit_if_any(self) -> None:
        """Say how many are missing and why, on standard error, and end the command with 1; nothing where none
        is."""
        exit_if_missing("answers", self._answers - self.count, self._notes)


def pruned_note(at_ms: int) -> str:
    """What is said of a body that was dropped then."""
    return f"{PRUNED} {iso_day(at_ms)}"


def exit_if_missing(what: str, there: int, notes: Counter[str]) -> None:
    """The same of anything: `there` are in it, and those that are not are counted by why."""
    if not (count := notes.total()):
        return
    why = "; ".join(f"{n:,} {note}" for note, n in sorted(notes.items()))
    text = f"{count:,} of {there + count:,} {what} {agreeing(count)} missing: {why}"
    error_console().print(text, markup=False, highlight=False)
    raise typer.Exit(FAILED)
