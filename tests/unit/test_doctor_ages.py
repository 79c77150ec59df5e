"""What the doctor says of what waits for too long."""

from app.cli.doctor.ages import BOUNDS, judge
from app.domain.state_gauges import STATE_GAUGES, Reading


def test_nothing_that_waits_is_well() -> None:
    assert judge([Reading("inbox_oldest_seconds", 119.0), Reading("relay_oldest_seconds", 0.0)]) == []


def test_what_waits_too_long_is_told_with_how_long_and_whose() -> None:
    checks = judge(
        [
            Reading("inbox_oldest_seconds", 7_300.0),
            Reading("unreported_retention_ratio", 0.5, {"account": "default"}),
            Reading("unreported_retention_ratio", 0.8, {"account": "eu"}),
        ]
    )
    assert [(check.name, check.state, check.detail) for check in checks] == [
        ("ages", "warning", "a delivery waits for 2 h to be settled"),
        ("ages of eu", "fault", "a task has no report after 80% of the time that the provider keeps it"),
    ]
    assert all(check.remedy for check in checks)


def test_every_bound_is_of_a_gauge_that_is_read() -> None:
    assert {bound.name for bound in BOUNDS} <= STATE_GAUGES.keys()
