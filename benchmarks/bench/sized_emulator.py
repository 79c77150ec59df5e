"""The emulator, with answers of one size, no two alike: `python -m benchmarks.bench.sized_emulator BYTES …`.

The rest of the command line is the emulator's own. A task that is asked for again has the same answer again.
"""

import sys
from collections.abc import Mapping
from typing import Any

import typer

from app.emulator.answers.compose import Answers
from app.emulator.cli.command import emulator
from app.emulator.data.editions import Edition
from benchmarks.bench.bodies import Writer

SEED = 13


def give_answers_of(size_bytes: int) -> None:
    """From now on every emulator of this process composes answers of that many bytes."""
    writer = Writer(SEED)

    def compose(
        self: Answers, task_type: str, edition: Edition, payload: Mapping[str, Any], number: int, link_id: str
    ) -> bytes:
        writer.draw_from(number)
        return writer.answer(size_bytes)

    Answers.compose = compose  # type: ignore[method-assign]


def main() -> None:
    """Run the emulator's command."""
    give_answers_of(int(sys.argv.pop(1)))
    typer.run(emulator)


if __name__ == "__main__":
    main()
