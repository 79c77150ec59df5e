"""The emulator's command line options, one alias each, and how NAME=VALUE settings are applied."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from app.emulator.billing.organization_spec import COUNT_MAX, KEY_PATTERN
from app.emulator.billing.pricing import PLANS, PRICE_LISTS
from app.emulator.data.editions import EDITIONS
from app.emulator.engine.faults import refuse_rate
from app.emulator.engine.options import SWITCH_CHOICES

TIME_SCALE_MAX = 1e6
"""At which a day is a fraction of a second; calendars end in the year 9999."""
REAL_SECONDS_MAX = 86_400.0


def _known(known: Mapping[str, object]) -> Callable[[str | None], str | None]:
    def check(name: str | None) -> str | None:
        if name is not None and name not in known:
            raise typer.BadParameter(f"{name!r} is not one of: {', '.join(known)}")
        return name

    return check


def _rate(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise typer.BadParameter("a rate lies between 0 and 1")
    return value


def _host(name: str) -> str:
    try:
        name.encode("idna")
    except UnicodeError as problem:
        raise typer.BadParameter(f"no name or address of a host: {problem}") from None
    if not name or not name.isprintable() or " " in name:
        # An empty one would be every address of this machine.
        raise typer.BadParameter(f"{name!r} is no name or address of a host, such as 127.0.0.1")
    return name


def _keys(keys: list[str] | None) -> list[str] | None:
    for key in keys or ():
        if re.fullmatch(KEY_PATTERN, key) is None:
            raise typer.BadParameter("a key is of ASCII letters, digits and signs, or no header can hold it")
    return keys


def _token(token: str | None) -> str | None:
    if token is not None and re.fullmatch(KEY_PATTERN, token) is None:
        raise typer.BadParameter("a token is of ASCII letters, digits and signs, or no header can hold it")
    return token


Host = Annotated[str, typer.Option(help="Address to listen on.", callback=_host)]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65_535)]
EditionName = Annotated[
    str | None,
    typer.Option(
        help="2025, legacy or 2026, each with its own prices; default: 2025 with today's.",
        callback=_known(EDITIONS),
    ),
]
PlanName = Annotated[str, typer.Option(help="Plan of the organization.", callback=_known(PLANS))]
Keys = Annotated[list[str] | None, typer.Option(help="API key; may be repeated.", callback=_keys)]
Secret = Annotated[str, typer.Option(help="Signing secret of the deliveries.")]
NoSigning = Annotated[bool, typer.Option("--no-signing", help="Send unsigned deliveries.")]
TimeScale = Annotated[
    float, typer.Option(help="Emulated seconds per real second.", min=0.0, max=TIME_SCALE_MAX)
]
Slots = Annotated[int | None, typer.Option(help="Slots; default: the plan's.", min=1, max=COUNT_MAX)]
RateLimit = Annotated[
    int | None, typer.Option(help="Per second; 0: none; default: the edition's.", min=0, max=COUNT_MAX)
]
Credits = Annotated[
    int | None, typer.Option(help="Opening balance; default: the plan's.", min=-COUNT_MAX, max=COUNT_MAX)
]
Prices = Annotated[str | None, typer.Option(help="Price list by name.", callback=_known(PRICE_LISTS))]
Seed = Annotated[
    int, typer.Option(help="Seed of answers, latencies and faults.", min=-(2**63), max=2**63 - 1)
]
Fail = Annotated[float, typer.Option(help="Share of tasks that fail.", callback=_rate)]
Duplicate = Annotated[float, typer.Option(help="Share of deliveries sent twice.", callback=_rate)]
Drop = Annotated[float, typer.Option(help="Share of deliveries that never arrive.", callback=_rate)]
Shuffle = Annotated[
    float,
    typer.Option(help="Hold deliveries back by 0 to this, real seconds.", min=0.0, max=REAL_SECONDS_MAX),
]
WrongCharge = Annotated[float, typer.Option(help="Share of tasks charged wrongly.", callback=_rate)]
LoseResponse = Annotated[float, typer.Option(help="Share of lost create answers.", callback=_rate)]
InternalRetry = Annotated[float, typer.Option(help="Share of attempts queued again.", callback=_rate)]
Grok = Annotated[bool | None, typer.Option("--grok/--no-grok", help="Default: on, but off in 2026.")]
DeliveryTimeout = Annotated[
    float, typer.Option(help="Real seconds per webhook attempt.", min=0.1, max=REAL_SECONDS_MAX)
]
InFlight = Annotated[int, typer.Option(help="Webhook requests at once.", min=1, max=COUNT_MAX)]
QueueMax = Annotated[int, typer.Option(help="Queued tasks per organization.", min=1, max=COUNT_MAX)]
BookLines = Annotated[int, typer.Option(help="Book lines kept past retention.", min=0, max=COUNT_MAX)]
CreditsEndpoint = Annotated[bool, typer.Option(help="Serve GET /v1/credits where there was none.")]
SwitchSettings = Annotated[list[str] | None, typer.Option(help="NAME or NAME=VALUE, see docs/emulator.md.")]
FaultSettings = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, see docs/emulator.md.")]
SetupFile = Annotated[
    Path | None, typer.Option(help="JSON: more organizations.", exists=True, dir_okay=False)
]
LocalHtml = Annotated[bool, typer.Option("--local-html", help="HTML links lead to this process.")]
ControlToken = Annotated[
    str | None,
    typer.Option(
        help="Bearer token for /_emulator; default: none on loopback, else one is made.", callback=_token
    ),
]
Lenient = Annotated[bool, typer.Option("--lenient", help="Ignore unknown request fields.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line when listening, then nothing.")]


def set_fields(target: Any, settings: list[str], kind: str) -> None:
    """Apply NAME or NAME=VALUE, dashes allowed for underscores, the value in the type of the field it
    replaces."""
    names = {field.name for field in fields(target)} - {"leniency"}
    if kind == "switch":
        names |= SWITCH_CHOICES.keys()
    for setting in settings:
        name, _, text = setting.replace("-", "_", setting.partition("=")[0].count("-")).partition("=")
        if name not in names:
            raise typer.BadParameter(f"{name!r} is no {kind}")
        if name in SWITCH_CHOICES and text not in SWITCH_CHOICES[name]:
            choices = ", ".join(SWITCH_CHOICES[name])
            raise typer.BadParameter(f"{setting!r}: {name} is one of {choices}")
        setattr(target, name, _value(setting, name, text, getattr(target, name), kind))


def _value(setting: str, name: str, text: str, present: object, kind: str) -> object:
    if isinstance(present, bool):
        if text.lower() not in _TRUE | _FALSE:
            raise typer.BadParameter(f"{setting!r}: {name} is on or off")
        return text.lower() in _TRUE
    if name != "seed" and not isinstance(present, (int, float)):
        return text
    try:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        value = int(text) if name == "seed" or isinstance(present, int) else float(text)
    except ValueError:
        raise typer.BadParameter(f"{setting!r} is not a value for the {kind} {name}") from None
    try:
        refuse_rate(name, value)
    except ValueError as problem:
        raise typer.BadParameter(f"{setting!r}: {problem}") from None
    return value


_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
"""What Python reads besides, 1_0 and digits of other scripts, nobody means."""
_TRUE = {"", "1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
