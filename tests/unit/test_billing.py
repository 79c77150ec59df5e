"""Cycles and statements by C-F, from tables and against a second way of counting."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.accounting.billing import (
    AccountEntry,
    CreditExposure,
    Cycle,
    CyclePosition,
    EntryKind,
    PostLine,
    SeenReset,
    Statement,
    cycles,
    expiring,
    months_after,
    plan_change,
    running,
)
from tests.clock import unix_ms

DAY_MS = 86_400_000


def days(found: list[Cycle]) -> list[tuple[str, str]]:
    return [(day(cycle.starts_ms), day(cycle.ends_ms)) for cycle in found]


def day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def seen(*resets: tuple[str, str]) -> list[SeenReset]:
    return [SeenReset(unix_ms(ends), unix_ms(first)) for ends, first in resets]


@pytest.mark.parametrize(
    ("anchor", "months", "anchor_day", "then"),
    [
        ("2026-01-31T09:30:00", 1, 31, "2026-02-28T09:30:00"),
        ("2026-02-28T09:30:00", 1, 31, "2026-03-31T09:30:00"),
        ("2028-01-31T00:00:00", 1, 31, "2028-02-29T00:00:00"),
        ("2026-03-31T00:00:00", -1, 31, "2026-02-28T00:00:00"),
        ("2026-01-15T23:59:59.999", -1, 15, "2025-12-15T23:59:59.999"),
        ("2025-12-15T00:00:00", 1, 15, "2026-01-15T00:00:00"),
        ("2026-05-30T00:00:00", -3, 30, "2026-02-28T00:00:00"),
    ],
)
def test_months_keep_their_day_where_there_is_one(
    anchor: str, months: int, anchor_day: int, then: str
) -> None:
    assert months_after(unix_ms(anchor), months, anchor_day) == unix_ms(then)


@pytest.mark.parametrize(
    ("resets", "expected"),
    [
        ([], []),
        ([("2026-11-15", "2026-10-20")], [("2026-10-15", "2026-11-15")]),
        (
            [("2026-11-15", "2026-10-20"), ("2026-12-15", "2026-11-15")],
            [("2026-10-15", "2026-11-15"), ("2026-11-15", "2026-12-15")],
        ),
        # Nobody looked from October to January.
        (
            [("2026-11-15", "2026-10-20"), ("2027-02-15", "2027-01-20")],
            [
                ("2026-10-15", "2026-11-15"),
                ("2026-11-15", "2026-12-15"),
                ("2026-12-15", "2027-01-15"),
                ("2027-01-15", "2027-02-15"),
            ],
        ),
        # The 31st: clamped in February, and back in March.
        (
            [("2026-01-31", "2026-01-05"), ("2026-02-28", "2026-02-01"), ("2026-03-31", "2026-03-01")],
            [("2025-12-31", "2026-01-31"), ("2026-01-31", "2026-02-28"), ("2026-02-28", "2026-03-31")],
        ),
        (
            [("2026-01-31", "2026-01-05"), ("2026-03-31", "2026-03-01")],
            [("2025-12-31", "2026-01-31"), ("2026-01-31", "2026-02-28"), ("2026-02-28", "2026-03-31")],
        ),
        # A new subscription on the 3rd, before the old month was over.
        (
            [("2026-11-15", "2026-10-20"), ("2026-12-03", "2026-11-04")],
            [("2026-10-15", "2026-11-03"), ("2026-11-03", "2026-12-03")],
        ),
        # A late answer tells the month before once more.
        (
            [("2026-11-15", "2026-10-20"), ("2026-12-15", "2026-11-15"), ("2026-11-15", "2026-11-16")],
            [("2026-10-15", "2026-11-15"), ("2026-11-15", "2026-12-15")],
        ),
    ],
)
def test_cycles_follow_the_resets_that_were_reported(
    resets: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert days(cycles(seen(*resets))) == expected


@given(
    st.dates(min_value=datetime(2024, 1, 1).date(), max_value=datetime(2027, 12, 31).date()),  # noqa: DTZ001
    st.sets(st.integers(1, 30), min_size=1, max_size=12),
)
def test_however_often_one_looks_the_cycles_join(subscribed: object, looked: set[int]) -> None:
    """Against the provider's way of counting: months from the day of subscription, each by itself."""
    anchor = unix_ms(f"{subscribed}T08:15:00")
    anchor_day = datetime.fromtimestamp(anchor / 1000, UTC).day
    months = sorted(looked)
    resets = [
        SeenReset(months_after(anchor, n, anchor_day), months_after(anchor, n - 1, anchor_day) + DAY_MS)
        for n in months
    ]
    found = cycles(resets)
    assert len(found) == months[-1] - months[0] + 1
    assert all(one.ends_ms == other.starts_ms for one, other in itertools.pairwise(found))
    assert {reset.resets_at_ms for reset in resets} <= {cycle.ends_ms for cycle in found}
    # Unless the day is hidden by a short month, each boundary is the provider's.
    if anchor_day <= 28:
        assert found[0].starts_ms == months_after(anchor, months[0] - 1, anchor_day)
        assert [c.ends_ms for c in found] == [
            months_after(anchor, n, anchor_day) for n in range(months[0], months[-1] + 1)
        ]


def test_the_running_cycle_goes_on_where_nobody_looked() -> None:
    known = cycles(seen(("2026-01-31", "2026-01-05")))
    assert running(known, unix_ms("2025-12-30")) is None
    assert running([], unix_ms("2026-01-01")) is None
    assert running(known, unix_ms("2026-01-10")) == known[0]
    assert days([running(known, unix_ms("2026-01-31")) or known[0]]) == [("2026-01-31", "2026-02-28")]
    assert days([running(known, unix_ms("2026-03-30")) or known[0]]) == [("2026-02-28", "2026-03-31")]


def test_days_left() -> None:
    cycle = Cycle(unix_ms("2026-10-15"), unix_ms("2026-11-15"))
    assert cycle.days_left(unix_ms("2026-10-15")) == 31.0
    assert cycle.days_left(unix_ms("2026-11-14T12:00:00")) == 0.5
    assert cycle.days_left(unix_ms("2026-11-20")) == 0.0
    assert cycle.holds(cycle.starts_ms)
    assert not cycle.holds(cycle.ends_ms)


CYCLE = Cycle(unix_ms("2026-04-10"), unix_ms("2026-05-10"))


def statement(
    *, used: int, external: int = 0, expired: int | None = None, granted: int = 250_000, change: int = 0
) -> Statement:
    amounts = {
        EntryKind.ALLOCATION: granted,
        EntryKind.ADJUSTMENT: change,
        EntryKind.EXTERNAL_USAGE: external,
        EntryKind.EXPIRY: expired,
    }
    entries = [
        AccountEntry(CYCLE.starts_ms, kind, Decimal(amount), CYCLE.starts_ms, "cycle_start: a plan")
        for kind, amount in amounts.items()
        if amount
    ]
    posts = [PostLine("2026-04-11", "CHATGPT", False, 1, Decimal(used))] if used else []
    return Statement("default", CYCLE, expired is not None, entries, posts)


def test_an_upgrade_leaves_the_new_allocation_less_what_was_used() -> None:
    """The contract's example: Hobby, 60,000 of 250,000 used, to Growth: 1,290,000 are available."""
    change = plan_change(Decimal(250_000), Decimal(1_350_000))
    assert statement(used=60_000, change=int(change)).remaining == 1_290_000
    assert plan_change(Decimal(1_350_000), Decimal(1_350_000)) == 0


@pytest.mark.parametrize(
    ("used", "external", "expired", "remaining", "overage", "closing"),
    [
        (1_000, 0, None, 249_000, 0, 249_000),
        (1_000, 0, 249_000, 249_000, 0, 0),
        (250_000, 0, 0, 0, 0, 0),
        (200_000, 50_000, 0, 0, 0, 0),
        (250_000, 7, 0, -7, 7, 0),
        (250_007, 0, None, -7, 7, 0),
    ],
)
def test_a_statement_balances(
    used: int, external: int, expired: int | None, remaining: int, overage: int, closing: int
) -> None:
    found = statement(used=used, external=external, expired=expired)
    assert (found.remaining, found.overage, found.closing) == (remaining, overage, closing)
    assert expiring(statement(used=used, external=external)) == max(0, remaining)


def test_what_is_out_is_not_available() -> None:
    exposure = CreditExposure(2, Decimal(10), 1, Decimal("2.5"))
    assert CyclePosition(statement(used=1_000), exposure).available == Decimal("248987.5")


def test_the_cause_is_the_first_word_of_the_reason() -> None:
    assert (
        AccountEntry(0, EntryKind.EXTERNAL_USAGE, Decimal(1), 0, "other_users: seen at 3").cause
        == "other_users"
    )
