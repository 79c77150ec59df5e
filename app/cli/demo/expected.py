"""What the emulator says it did, in our words, and where our books say otherwise.

Reads nothing but the facts of its books: the faults it put in, product clusters, acknowledgements, times.
None of our reconciling code takes part, or the two would agree in their mistakes too.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from app.domain.credits import to_json_number
from app.domain.verdicts import Verdict
from app.views.runs import Document

COUNTS = (
    "tasks",
    "completed",
    "failed",
    "rejected",
    "expired",
    "duplicates",
    "swept",
    "recovered_submits",
    "credits_charged",
)
"""What is compared as one figure each, besides the verdicts."""
FAULT_OF = {
    "overcharge": Verdict.OVERCHARGED,
    "undercharge": Verdict.UNDERCHARGED,
    "charged_failure": Verdict.CHARGED_FAILURE,
}

Line = Mapping[str, Any]
"""One task in the emulator's books."""


def emulator_totals(lines: Sequence[Line], *, swept: int, duplicates: int) -> Document:
    """The emulator's side of the report. It refuses nothing and forgets nothing while a demo lasts, so no
    task of it is rejected or expired. `swept`, `duplicates`: what our books say, which stands if it can be
    true."""
    verdicts = {verdict.value: 0 for verdict in Verdict}
    for line in lines:
        verdicts[expected_verdict(line)] += 1
    return {
        "tasks": len(lines),
        "completed": sum(line["status"] == "COMPLETED" for line in lines),
        "failed": sum(line["status"] == "FAILED" for line in lines),
        "rejected": 0,
        "expired": 0,
        "duplicates": _within(duplicates, duplicates_between(lines)),
        "swept": _within(swept, swept_between(lines)),
        "recovered_submits": sum(line["responseLost"] for line in lines),
        "verdicts": verdicts,
        "credits_charged": to_json_number(sum((_charge(line) or Decimal(0) for line in lines), Decimal(0))),
    }


def expected_verdict(line: Line) -> Verdict:
    """What reconciling must find, from what the emulator did on purpose."""
    for fault, verdict in FAULT_OF.items():
        if fault in line["faults"]:
            return verdict
    if line["status"] == "FAILED":
        return Verdict.FREE_FAILURE
    return Verdict.EXPLAINED if line["clusters"] > 0 else Verdict.MATCHED


def swept_between(lines: Sequence[Line]) -> tuple[int, int]:
    """How many tasks were settled by a poll: at least those that were never delivered, at most all whose end
    was fetched. Which of the two was settled first, where a task has both, is in no book of the emulator's: a
    delivery is acknowledged once it is stored, and on a slow machine a poll may overtake it then."""
    polled = [line for line in lines if line["firstTerminalPollAt"] is not None]
    return sum(line["firstAckAt"] is None for line in polled), len(polled)


def duplicates_between(lines: Sequence[Line]) -> tuple[int, int]:
    """How many deliveries came again: at least what was acknowledged again, at most what was sent again. What
    was acknowledged too late for the emulator is stored all the same."""
    again = [[max(0, line["deliveries"][kind] - 1) for line in lines] for kind in ("acked", "sent")]
    return sum(again[0]), sum(again[1])


def _within(figure: int, between: tuple[int, int]) -> int:
    least, most = between
    return min(max(figure, least), most)


def differences(found: Document, expected: Document) -> list[Document]:
    """Every figure in which the two sides differ."""
    both = [(name, found[name], expected[name]) for name in COUNTS]
    both += [
        (f"verdicts.{verdict.value}", found["verdicts"][verdict.value], expected["verdicts"][verdict.value])
        for verdict in Verdict
    ]
    return [{"key": key, "found": ours, "emulator": theirs} for key, ours, theirs in both if ours != theirs]


def charge_differences(charges: Mapping[str, Decimal | None], lines: Sequence[Line]) -> list[Document]:
    """Every task whose charge in our books is not the one in the emulator's, or that only one side has."""
    theirs = {line["idempotencyKey"]: _charge(line) for line in lines}
    missing = object()
    return [
        {
            "idempotency_key": key,
            "found": to_json_number(charges[key]) if key in charges else "no such task",
            "emulator": to_json_number(theirs[key]) if key in theirs else "no such task",
        }
        for key in sorted(charges.keys() | theirs.keys())
        if charges.get(key, missing) != theirs.get(key, missing)
    ]


def _charge(line: Line) -> Decimal | None:
    charged = line["creditsCharged"]
    return None if charged is None else Decimal(str(charged))
