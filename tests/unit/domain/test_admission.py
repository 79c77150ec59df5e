"""How much may be at the provider at once: the arithmetic of P17 and P11."""

from decimal import Decimal

import pytest

from app.domain.admission import QUEUE_MARGIN, QUEUE_MAX, backlog_max, send_quota

TWELVE_HOURS_S = 12 * 3600.0
D = Decimal


@pytest.mark.parametrize(
    ("concurrency", "finished_per_s", "expected"),
    [
        (50, None, 36_000),  # the rule's own examples: 50 slots at 60 s a task, 12 h
        (255, None, QUEUE_MAX - QUEUE_MARGIN),
        (10, None, 7_200),
        (None, None, 7_200),  # unknown slots count as the smallest paid plan's
        (50, 0.5, 21_600),  # measured: slower than the slots promise
        (50, 5.0, QUEUE_MAX - QUEUE_MARGIN),
        (50, 0.0001, 100),  # however slow, the slots may be filled twice
    ],
)
def test_backlog_is_what_is_finished_within_the_target(
    concurrency: int | None, finished_per_s: float | None, expected: int
) -> None:
    found = backlog_max(concurrency=concurrency, finished_per_s=finished_per_s, drain_target_s=TWELVE_HOURS_S)
    assert found == expected


@pytest.mark.parametrize(
    ("outstanding", "remaining", "held", "tasks", "says"),
    [
        (0, None, D(0), 100, None),
        (99, None, D(0), 1, None),
        (100, None, D(0), 0, "100 tasks at the provider"),
        (0, D(10_000), D(0), 100, None),
        (0, D(250), D(0), 10, None),
        (0, D(250), D(230), 1, None),  # near the end one by one
        (0, D(250), D(248), 0, "250 credits left, 248 of them outstanding"),
        (0, D(-5), D(0), 0, "-5 credits left"),
    ],
)
def test_room_is_bounded_by_the_backlog_and_the_balance(
    outstanding: int, remaining: Decimal | None, held: Decimal, tasks: int, says: str | None
) -> None:
    found = send_quota(
        outstanding_tasks=outstanding, backlog=100, remaining=remaining, outstanding_credits=held
    )
    assert found.tasks == tasks
    assert (found.reason is not None and says in found.reason.text) if says else found.reason is None
