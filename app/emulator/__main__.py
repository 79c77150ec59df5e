"""`python -m app.emulator`: the emulator without the rest of the command line."""

import typer

from .command import emulator


def main() -> None:
    """Run the one command."""
    typer.run(emulator)


if __name__ == "__main__":
    main()
