"""`python -m app.emulator`: the emulator without the rest of the command line."""

import os
import signal


def _end(*_: object) -> None:
    # A SystemExit may be lost in a finalizer, or wait for a thread.
    os._exit(0)


if __name__ == "__main__":
    # Before all else: as process 1 a signal would be ignored while the rest is imported.
    signal.signal(signal.SIGTERM, _end)

import typer

from app.emulator.cli.command import emulator


def main() -> None:
    """Run the one command."""
    typer.run(emulator)


if __name__ == "__main__":
    main()
