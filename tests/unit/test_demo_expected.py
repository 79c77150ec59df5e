"""The emulator's side of the demo's report, from its books alone, and that every difference is seen."""

from decimal import Decimal
from typing import Any

import pytest

from app.cli.demo.expected import (
    COUNTS,
    charge_differences,
    differences,
    duplicates_between,
    emulator_totals,
    expected_verdict,
    swept_between,
)
from app.domain.verdicts import Verdict

AT = "2026-11-21T20:00:00.000Z"


def line(key: str = "a", **changes: Any) -> dict[str, Any]:
    """A line of the emulator's books: completed, delivered once."""
    return {
        "idempotencyKey": key,
        "status": "COMPLETED",
        "creditsToCharge": 4,
        "creditsCharged": 4,
        "clusters": 0,
        "faults": [],
        "responseLost": False,
        "deliveries": {"sent": 1, "acked": 1},
        "firstAckAt": AT,
        "firstTerminalPollAt": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.MATCHED),
        ({"clusters": 2}, Verdict.EXPLAINED),
        ({"clusters": 2, "faults": ["overcharge"]}, Verdict.OVERCHARGED),
        ({"faults": ["duplicate", "undercharge"]}, Verdict.UNDERCHARGED),
        ({"faults": ["fail"], "status": "FAILED"}, Verdict.FREE_FAILURE),
        ({"faults": ["fail", "charged_failure"], "status": "FAILED"}, Verdict.CHARGED_FAILURE),
        ({"faults": ["drop", "lose_response"]}, Verdict.MATCHED),
    ],
)
def test_each_fault_has_its_verdict(changes: dict[str, Any], verdict: Verdict) -> None:
    assert expected_verdict(line(**changes)) is verdict


@pytest.mark.parametrize(
    ("acked", "polled", "between"),
    [(AT, None, (0, 0)), (None, AT, (1, 1)), (AT, AT, (0, 1)), (None, None, (0, 0))],
)
def test_what_was_fetched_and_delivered_may_be_settled_by_either(
    acked: str | None, polled: str | None, between: tuple[int, int]
) -> None:
    lines = [line(firstAckAt=acked, firstTerminalPollAt=polled)]
    assert swept_between(lines) == between
    for ours in range(3):
        agrees = emulator_totals(lines, swept=ours, duplicates=0)["swept"] == ours
        assert agrees is (between[0] <= ours <= between[1])


@pytest.mark.parametrize(
    ("sent", "acked", "between"), [(0, 0, (0, 0)), (1, 1, (0, 0)), (2, 2, (1, 1)), (3, 1, (0, 2))]
)
def test_what_was_acknowledged_too_late_may_be_stored(
    sent: int, acked: int, between: tuple[int, int]
) -> None:
    lines = [line(deliveries={"sent": sent, "acked": acked}), line("b")]
    assert duplicates_between(lines) == between
    for ours in range(4):
        agrees = emulator_totals(lines, swept=0, duplicates=ours)["duplicates"] == ours
        assert agrees is (between[0] <= ours <= between[1])


def test_the_testimony_counts_what_was_done() -> None:
    expected = emulator_totals(
        [
            line("a", deliveries={"sent": 3, "acked": 3}),
            line("b", status="FAILED", faults=["fail"], creditsCharged=0, responseLost=True),
            line("c", deliveries={"sent": 0, "acked": 0}, firstAckAt=None, firstTerminalPollAt=AT),
        ],
        swept=1,
        duplicates=2,
    )
    assert {name: expected[name] for name in COUNTS} == {
        "tasks": 3,
        "completed": 2,
        "failed": 1,
        "rejected": 0,
        "expired": 0,
        "duplicates": 2,
        "swept": 1,
        "recovered_submits": 1,
        "credits_charged": 8,
    }
    assert {k: n for k, n in expected["verdicts"].items() if n} == {"matched": 2, "free_failure": 1}


def test_equal_sides_have_no_difference() -> None:
    assert (
        differences(
            emulator_totals([line()], swept=0, duplicates=0), emulator_totals([line()], swept=0, duplicates=0)
        )
        == []
    )


@pytest.mark.parametrize("name", COUNTS)
def test_every_figure_is_compared(name: str) -> None:
    expected = emulator_totals([line()], swept=0, duplicates=0)
    found = expected | {name: expected[name] + 1}
    assert differences(found, expected) == [
        {"key": name, "found": expected[name] + 1, "emulator": expected[name]}
    ]


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_compared(verdict: Verdict) -> None:
    expected = emulator_totals([line()], swept=0, duplicates=0)
    found = expected | {"verdicts": expected["verdicts"] | {verdict.value: 7}}
    assert [difference["key"] for difference in differences(found, expected)] == [f"verdicts.{verdict}"]


def test_charges_are_compared_task_by_task() -> None:
    lines = [line("a"), line("b"), line("c", creditsCharged=None)]
    agreeing = {"a": Decimal(4), "b": Decimal(4), "c": None}
    assert charge_differences(agreeing, lines) == []
    # The sums are equal, the tasks are not.
    swapped = {"a": Decimal(3), "b": Decimal(5), "c": None}
    assert [
        (d["idempotency_key"], d["found"], d["emulator"]) for d in charge_differences(swapped, lines)
    ] == [("a", 3, 4), ("b", 5, 4)]


def test_a_task_that_only_one_side_has_is_a_difference() -> None:
    found = charge_differences({"a": Decimal(4), "ours": None}, [line("a"), line("theirs")])
    assert [(d["idempotency_key"], d["found"], d["emulator"]) for d in found] == [
        ("ours", None, "no such task"),
        ("theirs", "no such task", 4),
    ]


def test_an_unknown_charge_is_not_0() -> None:
    assert charge_differences({"a": None}, [line("a", creditsCharged=0)]) != []
