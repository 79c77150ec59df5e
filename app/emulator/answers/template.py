"""A prepared answer: members already encoded, so that a task costs a few joins instead of an encoding of
15 KB."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.emulator.data.editions import Edition


@dataclass(slots=True, kw_only=True)
class Draft:
    """One engine's answer with every optional key present, as a generator writes it."""

    text: list[str]
    """Paragraphs; a lead sentence about the prompt is put in front."""
    markdown: str | None = None
    members: dict[str, Any] = field(default_factory=dict)
    """In wire order."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """By member: the include flag without which it is left out."""
    counted: frozenset[str] = frozenset()
    """Members that are lists cut to a count that depends on the request."""
    chosen: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """By member: a flag, and the value when it is set."""


Generator = Callable[[random.Random, Edition], Draft]


@dataclass(slots=True)
class Member:
    """One key of the answer as bytes: `"key":value`, or the pieces it is cut from."""

    key: str
    needs: str | None
    whole: bytes
    pieces: list[bytes] | None = None
    flag: str | None = None
    when_set: bytes = b""


@dataclass(slots=True)
class Template:
    """An encoded draft. `text` and `markdown` stop before the opening quote's content, which is per task."""

    text: bytes
    markdown: bytes
    members: list[Member]


def _inside(text: str) -> bytes:
    """A JSON string's content without its quotes."""
    return msgspec.json.encode(text)[1:-1]


def _piece(value: Any) -> bytes:
    """One element, or a page of elements without its brackets."""
    encoded = msgspec.json.encode(value)
    return encoded[1:-1] if isinstance(value, list) else encoded


def encode(draft: Draft) -> Template:
    """Do all encoding that does not depend on the task."""
    members: list[Member] = []
    for key, value in draft.members.items():
        name = msgspec.json.encode(key) + b":"
        member = Member(key, draft.needs.get(key), name + msgspec.json.encode(value))
        if key in draft.counted:
            member.pieces = [_piece(piece) for piece in value]
        if key in draft.chosen:
            flag, other = draft.chosen[key]
            member.flag, member.when_set = flag, name + msgspec.json.encode(other)
        members.append(member)
    plain = "\n\n".join(draft.text)
    return Template(_inside("\n\n" + plain), _inside("\n\n" + (draft.markdown or plain)), members)
