"""Bodies that a true signature may stand under, whatever they say; made of short descriptions, so that a
failure prints them in a line each.
"""

from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st

TASKS = 8
"""Of the scene that they are sent to."""
VALUES: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "nothing": b'""',
    "list": b"[]",
    "object": b"{}",
    "text": b'"5"',
    "below": b"-1",
    "huge": b"1e999",
    "tiny": b"1e-9",
    "part": b"7.000001",
    "parts": b"0.0000001",
    "most": b"100000",
    "too much": b"100001",
    "a million millions": b"1000000000000",
    "past 64 bits": b"99999999999999999999",
    "digits": b"1" * 5_000,
    "half": b'"\\ud83d"',
    "halves": b'"\\udc00\\ud800"',
    "nul": b'"\\u0000"',
    "escape": b'"\\u001b[2J\\u202e"',
    "long": b'"' + b"x" * 70_000 + b'"',
    "deep": b"[" * 5_000 + b"]" * 5_000,
    "nested": b'{"a":' * 300 + b"1" + b"}" * 300,
    "NaN": b"NaN",
    "not a number": b'"NaN"',
    "emoji": '"👟"'.encode(),
    "not UTF-8": b'"\xff"',
}
"""JSON, or what is none, that may stand where something else should."""
STATUSES = {name: f'"{name}"'.encode() for name in ("COMPLETED", "FAILED", "QUEUED", "completed", "")}
RESPONSES = {
    "a": b'{"text":"a"}',
    "a, spaced": b'{ "text" : "a" }',
    "b": b'{"text":"b"}',
    "wrapped": b'{"success":true,"result":{"text":"a"}}',
    "half an emoji": b'{"text":"\\ud83d"}',
    "no credits": b'{"error":{"code":"INSUFFICIENT_CREDITS","message":"\\u0000\\ud83d"}}',
}
FIGURES = {str(figure): str(figure).encode() for figure in (5, 0, 7.5, 25, 45)}


SHAPES = ("twice", "extra", "in a list", "text", "empty", "cut", "two", "BOM", "large", "task is text")


class Names(Protocol):
    """What ids and keys of the scene are called just now."""

    def provider_id(self, place: int) -> str: ...

    def key(self, place: int, attempt: str) -> str: ...


@dataclass(frozen=True)
class Body:
    """One body: which task of the scene it is about, and how it is wrong. `task_id` and `key`: own,
    another's, unknown, none, or a name of VALUES; all else names of the tables above."""

    about: int
    other: int
    task_id: str
    key: str
    attempt: str
    status: str
    to_charge: str
    charged: str
    response: str
    credits_in: str
    shape: str
    account: str
    copies: int
    """How often it is sent."""
    same_moment: bool
    """The copies carry one signature, and different webhook ids."""

    def encoded(self, names: Names) -> bytes:
        """As it goes over the wire."""
        task = self._field("id", self._id(names)) + self._field("idempotencyKey", self._key(names))
        task += [b'"status":' + (STATUSES | VALUES)[self.status]]
        figures = [
            b'"creditsToCharge":' + (FIGURES | VALUES)[self.to_charge],
            b'"creditsCharged":' + (FIGURES | VALUES)[self.charged],
        ]
        whole = [b'"response":' + (RESPONSES | VALUES)[self.response]]
        if self.credits_in == "task":
            task += figures
        elif self.credits_in == "root":
            whole += figures
        else:
            whole.append(b'"credits":{' + b",".join(figures) + b"}")
        return self._shaped(b'"task":{' + b",".join(task) + b"}", whole)

    def _field(self, name: str, value: bytes | None) -> list[bytes]:
        return [] if value is None else [b'"' + name.encode() + b'":' + value]

    def _id(self, names: Names) -> bytes | None:
        if self.task_id in ("own", "another's"):
            return b'"%s"' % names.provider_id(self.about if self.task_id == "own" else self.other).encode()
        return {"unknown": b'"pt-of-nobody"', "none": None}.get(self.task_id, VALUES.get(self.task_id))

    def _key(self, names: Names) -> bytes | None:
        if self.key in ("own", "another's"):
            place = self.about if self.key == "own" else self.other
            return b'"%s"' % names.key(place, self.attempt).encode()
        unknown = b'"0199a000-0000-7000-8000-000000000000.1"'
        return {"unknown": unknown, "none": None}.get(self.key, VALUES.get(self.key))

    def _shaped(self, task: bytes, whole: list[bytes]) -> bytes:
        if self.shape == "twice":  # every name of it, and the first time another value
            whole = [
                b'"task":{"id":"pt-of-nobody","status":"FAILED","status":"QUEUED"}',
                b'"response":0',
                task,
                *whole,
            ]
        elif self.shape == "extra":
            whole = [
                task,
                *whole,
                *(b'"more %d":' % n + value for n, value in enumerate(VALUES.values()) if value != b"NaN"),
            ]
        else:
            whole = [task, *whole]
        body = b"{" + b",".join(whole) + b"}"
        return {
            "in a list": b"[" + body + b"]",
            "text": b'"' + body.hex().encode() + b'"',
            "empty": b"",
            "cut": body[:-1],
            "two": body + body,
            "BOM": b"\xef\xbb\xbf" + body,
            "large": body + b" " * 300_000,
            "task is text": body.replace(b'"task":{', b'"task":"","other":{'),
        }.get(self.shape, body)


def mostly(*good: str, seldom: object) -> st.SearchStrategy[str]:
    """One of a few good words four times of five."""
    return st.integers(0, 4).flatmap(lambda n: st.sampled_from(good) if n else st.sampled_from(list(seldom)))  # type: ignore[call-overload]


bodies = st.builds(
    Body,
    about=st.integers(0, TASKS - 1),
    other=st.integers(0, TASKS - 1),
    task_id=mostly("own", "own", "own", "another's", seldom=["unknown", "none", *VALUES]),
    key=mostly("own", "own", "own", "another's", "none", seldom=["unknown", *VALUES]),
    attempt=mostly("current", "1", "1", seldom=["0", "01", "2", "3", "999999", "1 ", "-1"]),
    status=mostly("COMPLETED", "COMPLETED", "FAILED", seldom=[*STATUSES, *VALUES]),
    to_charge=mostly("5", "5", "5", "7.5", seldom=[*FIGURES, *VALUES]),
    charged=mostly("5", "5", "0", "null", seldom=[*FIGURES, *VALUES]),
    response=mostly(*RESPONSES, seldom=VALUES),
    credits_in=st.sampled_from(["credits", "credits", "task", "root"]),
    shape=mostly("plain", seldom=SHAPES),
    account=mostly("own", seldom=["default", "eu"]),
    copies=st.sampled_from([1, 1, 1, 2, 3]),
    same_moment=st.booleans(),
)
