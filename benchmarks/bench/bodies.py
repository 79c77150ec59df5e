"""Webhook bodies as the provider sends them (C-I.1): 18 KB of JSON, no two alike, signed.

Pure but for the seed: the same seed gives the same bodies. Nothing here is timed.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

import msgspec

from app.config import EMULATOR_WEBHOOK_SECRET
from app.provider.signature import sign

BODY_BYTES = 18 * 1024
CREDITS = 7
"""What each task of the backlog was accepted for, and is charged."""
SENTENCES = 6_000
"""More than one body holds: bodies share words and sentences, as real answers do, but no long passage."""
SOURCES = 10


class Writer:
    """Writes bodies; making one costs a few joins."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "eeeeaaaiiooutnrsslhdcmpgbfvwyk"
        words = ["".join(self._random.choices(letters, k=self._random.randint(2, 11))) for _ in range(3_000)]
        # Natural language: a few words are most of a text (Zipf).
        weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
        self._sentences = [
            " ".join(
                self._random.choices(words, cum_weights=weights, k=self._random.randint(8, 20))
            ).capitalize()
            + ". "
            for _ in range(SENTENCES)
        ]

    def body(self, key: str, task_id: str) -> bytes:
        """One completed task's body of BODY_BYTES bytes."""
        head = {
            "task": {
                "id": task_id,
                "taskType": "CHATGPT",
                "status": "COMPLETED",
                "priority": 1,
                "createdAt": "2026-11-21T15:00:00.000Z",
                "latencyMs": self._random.randint(20_000, 90_000),
                "idempotencyKey": key,
            },
            "credits": {"creditsToCharge": CREDITS, "creditsCharged": CREDITS},
        }
        frame = msgspec.json.encode(head)[:-1] + b',"response":%s}'
        return frame % self.answer(BODY_BYTES - len(frame) + 2)  # %s: two bytes less than it takes

    def answer(self, size_bytes: int) -> bytes:
        """What the provider found, `size_bytes` of JSON; no less than the 4 KB that sources take."""
        sources = [
            {
                "position": n + 1,
                "url": f"https://{self._random.getrandbits(64):x}.example/{n}",
                "label": self._sentence()[:40],
                "description": self._sentence(),
            }
            for n in range(SOURCES)
        ]
        frame = (
            b'{"model":null,"text":"%s","sources":'
            + msgspec.json.encode(sources)
            + b',"shoppingCards":[],"entities":[],"markdown":"%s","searchQueries":[]}'
        )
        # %s twice: four bytes less than they take. The text is the markdown without its marks.
        prose_bytes = size_bytes - len(frame) + 4
        prose = "".join(self._random.choices(self._sentences, k=prose_bytes // 80)).encode()
        half = prose_bytes // 2
        text = prose[:half].ljust(half, b"x")
        return frame % (text, text.replace(b". ", b"\\n", 8).ljust(prose_bytes - half, b"x"))

    def draw_from(self, seed: int) -> None:
        """Draw what comes next by another seed: the same one gives the same answer again."""
        self._random.seed(seed)

    def _sentence(self) -> str:
        return self._random.choice(self._sentences)


def write_bodies(seed: int, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(provider task id, body) for each idempotency key."""
    writer = Writer(seed)
    for key, task_id in zip(keys, provider_task_ids(seed), strict=False):
        yield task_id, writer.body(key, task_id)


def provider_task_ids(seed: int) -> Iterator[str]:
    """The provider's task ids of the bodies of a seed, in their order, without end."""
    ids = random.Random(seed)
    while True:
        bits = f"{ids.getrandbits(128):032x}"
        yield f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def signed_headers(task_id: str, body: bytes, signed_s: int) -> dict[str, str]:
    """The headers of a delivery signed at `signed_s` (Unix seconds)."""
    timestamp = str(signed_s)
    return {
        "X-Cloro-Webhook-Id": f"{task_id}-1",
        "X-Cloro-Timestamp": timestamp,
        "X-Cloro-Signature": sign(EMULATOR_WEBHOOK_SECRET, timestamp, body),
    }
