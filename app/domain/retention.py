"""How long rows are kept, and the receipts of those that were dropped. Pure.

A receipt speaks for a day (UTC) of one kind of rows: so whether it covers a delivery can be told from the
delivery's id alone, which carries its time.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from app.domain.time_format import DAY_MS


class Kind(StrEnum):
    """What can be pruned; the ledger, tasks and results never are."""

    BODIES = "bodies"
    SUBMISSIONS = "submissions"
    BALANCES = "balances"
    NOTICES = "notices"
    FINDINGS = "findings"
    KEYS = "keys"


class Reason(StrEnum):
    """Why rows stay that are older than the policy asks for."""

    WAITING = "waiting"  # not settled yet, or set aside
    OPEN = "open"  # its task is open, or the task's money
    RETAINED = "retained"  # its run is, or one that an answer of its was reused for
    DISPUTED = "disputed"  # a finding about its task needs explaining
    NEEDED = "needed"  # other rows are explained by it


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where else the bodies of a day stand."""

    location: str | None = None
    """The archive; None: nowhere."""
    missing: frozenset[str] = frozenset()
    """Ids of deliveries that are not there yet."""
    blocks: int = 0
    """How many they are in there."""


OPEN, DONE = "open", "done"
"""States of a receipt."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was dropped of one kind of one day."""

    id: str
    kind: str
    from_ms: int
    until_ms: int
    begun_at_ms: int
    at_ms: int
    state: str
    row_count: int
    body_bytes: int
    credits_charged: Decimal
    kept: int | None
    """Rows of the day that stayed; None: not counted, or not yet."""
    sha256: str
    location: str | None = None


def kept_since(now_ms: int, days: int) -> int:
    """The midnight (UTC) before which whole days are older than `days`."""
    oldest = now_ms - days * DAY_MS
    return oldest - oldest % DAY_MS


def chain(sha256: str, rows: Iterable[tuple[str, str]]) -> str:
    """The hash of a receipt with further rows of (id, SHA-256 of the body, or of the row): each row's hash is
    over the one before, the id and the row's own. So batches of any size come to the same."""
    for row_id, row_sha256 in rows:
        sha256 = hashlib.sha256(f"{sha256}{row_id}{row_sha256}".encode()).hexdigest()
    return sha256


class Receipts:
    """Which rows may be gone, by the receipts of a database."""

    def __init__(self, receipts: Iterable[Receipt] = ()) -> None:
        self._of = {(receipt.kind, receipt.from_ms): receipt for receipt in receipts}

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self._of.values())

    def of_body(self, delivery_id: str) -> Receipt | None:
        """The receipt of the day that is in a delivery's id."""
        return self._at(Kind.BODIES, int(delivery_id.replace("-", "")[:12], 16))

    def of_sends(self, submitted_at_ms: int | None) -> Receipt | None:
        """The receipt of the sends of an attempt that was accepted then: they go together."""
        return None if submitted_at_ms is None else self._at(Kind.SUBMISSIONS, submitted_at_ms)

    def _at(self, kind: Kind, ms: int) -> Receipt | None:
        return self._of.get((kind, ms - ms % DAY_MS))
