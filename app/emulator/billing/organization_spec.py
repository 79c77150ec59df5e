"""Organizations as a file or a control request describes them; only data, checked when it is read."""

import contextlib
import json
from datetime import datetime
from typing import Annotated

import msgspec

COUNT_MAX = 10**12
"""Of credits, slots, tasks: sums of them stay within 64 bits."""
KEY_PATTERN = r"[!-~]{1,500}"
"""What a header can carry."""

Key = Annotated[str, msgspec.Meta(pattern=rf"\A{KEY_PATTERN}\Z")]
Price = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Slots = Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]
Credits = Annotated[int, msgspec.Meta(ge=-COUNT_MAX, le=COUNT_MAX)]


class KeySpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One API key."""

    key: Key
    edition: str | None = None
    """None: the process's."""
    free: bool | None = None
    """True: not billed (C-L row L29); None: by the switch for test keys."""


class OrganizationSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One organization and its subscription."""

    name: str
    plan: str = "starter"
    keys: tuple[KeySpec, ...] = ()
    shares_plan_of: str | None = None
    """Another organization's name: one account for both (C-F)."""
    slots: Slots | None = None
    """Its part of the shared slots, or an override."""
    webhook_secret: str | None = None
    """None: deliveries are unsigned."""
    prices: dict[str, Price] = {}
    """Base price by task type, instead of the list's."""
    price_list: str | None = None
    credits: Credits | None = None
    """Of the first cycle; None: the plan's allocation."""
    subscribed_at: datetime | None = None
    """Anchor of the cycles; None: now."""


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file behind `--organizations`."""

    organizations: tuple[OrganizationSpec, ...]


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise msgspec.ValidationError(f"{name!r} is given twice in one object: keep one of them")
        names.add(name)


def read_setup(raw: bytes) -> tuple[OrganizationSpec, ...]:
    """The organizations of a JSON file; msgspec's error names the offending field."""
    # msgspec takes the last of names that are repeated in one object.
    try:
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            json.loads(raw, object_pairs_hook=_refuse_repeated, parse_int=float)
        return msgspec.json.decode(raw, type=Setup).organizations
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply: write plain objects") from None
