"""Help of a command: `tallyhook COMMAND --help`, without what typer loads to read an option, which takes
longer than all the rest of it."""

import sys
from collections.abc import Sequence

from typer import Context
from typer.core import TyperGroup


def show_help(program: TyperGroup, arguments: Sequence[str]) -> bool:
    """Whether the arguments are names of commands with --help behind, and it was shown. What else there is
    typer reads."""
    context = _context_of(program, arguments) if {"-h", "--help"}.intersection(arguments[-1:]) else None
    if context is None:
        return False
    context.command.get_help(context)  # drawn on standard output, and an empty text
    sys.stdout.flush()
    return True


def _context_of(program: TyperGroup, arguments: Sequence[str]) -> Context | None:
    context = Context(program, info_name="tallyhook", **program.context_settings)
    for name in arguments[:-1]:
        group = context.command
        command = group.get_command(context, name) if isinstance(group, TyperGroup) else None
        if command is None:
            return None
        context = Context(command, info_name=name, parent=context, **command.context_settings)
    return context if arguments[-1] in context.help_option_names else None
