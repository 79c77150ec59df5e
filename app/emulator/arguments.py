"""The emulator's command line options, one alias each, and how NAME=VALUE settings are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from .editions import EDITIONS
from .options import SWITCH_CHOICES
from .plans import PLANS
from .pricing import PRICE_LISTS


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


Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")]
EditionName = Annotated[
    str | None,
    typer.Option(
        help="2025, legacy or 2026, each with its own prices; default: 2025 with today's.",
        callback=_known(EDITIONS),
    ),
]
PlanName = Annotated[str, typer.Option(help="Plan of the organization.", callback=_known(PLANS))]
Keys = Annotated[list[str] | None, typer.Option(help="API key; may be repeated.")]
Secret = Annotated[str, typer.Option(help="Signing secret of the deliveries.")]
NoSigning = Annotated[bool, typer.Option("--no-signing", help="Send unsigned deliveries.")]
TimeScale = Annotated[float, typer.Option(help="Emulated seconds per real second.", min=0.0)]
Slots = Annotated[int | None, typer.Option(help="Slots; default: the plan's.", min=1)]
RateLimit = Annotated[int | None, typer.Option(help="Per second; 0: none; default: the edition's.", min=0)]
Credits = Annotated[int | None, typer.Option(help="Opening balance; default: the plan's.")]
Prices = Annotated[str | None, typer.Option(help="Price list by name.", callback=_known(PRICE_LISTS))]
Seed = Annotated[int, typer.Option(help="Seed of answers, latencies and faults.")]
Fail = Annotated[float, typer.Option(help="Share of tasks that fail.", callback=_rate)]
Duplicate = Annotated[float, typer.Option(help="Share of deliveries sent twice.", callback=_rate)]
Drop = Annotated[float, typer.Option(help="Share of deliveries that never arrive.", callback=_rate)]
Shuffle = Annotated[float, typer.Option(help="Hold deliveries back by 0 to this, real seconds.", min=0.0)]
WrongCharge = Annotated[float, typer.Option(help="Share of tasks charged wrongly.", callback=_rate)]
LoseResponse = Annotated[float, typer.Option(help="Share of lost create answers.", callback=_rate)]
InternalRetry = Annotated[float, typer.Option(help="Share of attempts queued again.", callback=_rate)]
Grok = Annotated[bool | None, typer.Option("--grok/--no-grok", help="Default: on, but off in 2026.")]
DeliveryTimeout = Annotated[float, typer.Option(help="Real seconds per webhook attempt.", min=0.1)]
InFlight = Annotated[int, typer.Option(help="Webhook requests at once.", min=1)]
QueueMax = Annotated[int, typer.Option(help="Queued tasks per organization.", min=1)]
BookLines = Annotated[int, typer.Option(help="Book lines kept past retention.", min=0)]
CreditsEndpoint = Annotated[bool, typer.Option(help="Serve GET /v1/credits where there was none.")]
SwitchSettings = Annotated[list[str] | None, typer.Option(help="NAME or NAME=VALUE, see docs/emulator.md.")]
FaultSettings = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, see docs/emulator.md.")]
SetupFile = Annotated[
    Path | None, typer.Option(help="JSON: more organizations.", exists=True, dir_okay=False)
]
LocalHtml = Annotated[bool, typer.Option("--local-html", help="HTML links lead to this process.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Ignore unknown request fields.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line when listening, then nothing.")]


def set_fields(target: object, settings: list[str], kind: str) -> None:
    """Apply NAME or NAME=VALUE, dashes as good as underscores, the value in the type of the field it
    replaces."""
    for setting in settings:
        name, _, text = setting.replace("-", "_", setting.partition("=")[0].count("-")).partition("=")
        if not hasattr(target, name) or name == "leniency":
            raise typer.BadParameter(f"{name!r} is no {kind}")
        present = getattr(target, name)
        if name in SWITCH_CHOICES and text not in SWITCH_CHOICES[name]:
            choices = ", ".join(SWITCH_CHOICES[name])
            raise typer.BadParameter(f"{setting!r}: {name} is one of {choices}")
        try:
            if isinstance(present, bool):
                value: object = text.lower() in ("", "1", "true", "yes", "on")
            elif isinstance(present, (int, float)):
                value = type(present)(text)
            else:
                value = int(text) if name == "seed" else text
        except ValueError:
            raise typer.BadParameter(f"{setting!r} is not a value for the {kind} {name}") from None
        setattr(target, name, value)
