"""Numbers of options, by the rule that holds in files and settings too: digits, with a point where parts are
meant. Python itself also reads 1_0, and the digits of other scripts, which nobody means."""

import functools
import re
from collections.abc import Callable
from typing import Any, get_args

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

WHOLE = re.compile(r"[+-]?[0-9]+")
WITH_PARTS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def read_digits_only(command: object) -> None:
    """Every option of a command that takes a number, and of all below it, refuses what is not written so."""
    for below in command.commands.values() if isinstance(command, TyperGroup) else ():
        read_digits_only(below)
    for parameter in getattr(command, "params", ()):
        if isinstance(parameter, TyperOption | TyperArgument):
            _read_digits_only(parameter)


def _read_digits_only(parameter: TyperOption | TyperArgument) -> None:
    kinds = _kinds(parameter.type_descriptor.annotation)
    if int in kinds or float in kinds:
        read = functools.partial(_checked, parameter, parameter.process_value, is_whole=int in kinds)
        parameter.process_value = read  # type: ignore[method-assign]


def _kinds(annotation: Any) -> set[Any]:
    return {annotation}.union(*map(_kinds, get_args(annotation)))


def _checked(
    parameter: TyperOption | TyperArgument,
    process_value: Callable[[Any, Any], Any],
    context: Any,
    value: Any,
    *,
    is_whole: bool,
) -> Any:
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str) and not (WHOLE if is_whole else WITH_PARTS).fullmatch(text):
            said = (
                "a whole number: write digits only"
                if is_whole
                else "a number: write digits, with a point if need be"
            )
            raise typer.BadParameter(f"{text[:40]!r} is not {said}", ctx=context, param=parameter)
    return process_value(context, value)
