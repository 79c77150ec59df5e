"""Every state that an alert knows, the doctor finds; and nothing where none is met."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.doctor import scraped
from app.cli.doctor.ages import judge as judge_ages
from app.cli.doctor.check import Check
from app.cli.doctor.scraped import LOOKS, Process
from app.cli.doctor.scraped import judge as judge_processes
from app.cli.doctor.standstill import Seen, standstills
from app.cli.doctor.stored import check_partitions
from app.domain.state_gauges import Reading
from app.store.write.partitions import PartitionState

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml"
NOW_S = 1_800_000_000.0
DEFAULT = {"account": "default"}
ELSEWHERE = {
    "TallyhookNoWorker": "check_worker",
    "TallyhookProcessDown": "check_worker, check_webhook; an orchestrator knows what should run",
    "TallyhookDeliveriesSetAside": "check_inbox",
    "TallyhookClockOff": "clocks",
}
"""Alerts whose states have a check of their own; tests/e2e/test_doctor.py has them."""


def reading(name: str, value: float, **labels: str) -> Reading:
    return Reading(name, value, labels)


def tasks(state: str) -> Reading:
    return reading("tasks", 5, state=state, **DEFAULT)


def sheet(*, explained: bool = True, ends: str | None = None, kind: str = "") -> dict[str, Any]:
    warnings = [{"kind": kind, "sure": True, "message": "credits end before run monday"}] if kind else []
    audit = {"explained": explained, "unexplained": 12, "at": "2027-01-15T08:00:00.000Z"}
    return {"default": {"audit": audit, "forecast": {"runs_out": {"likely": ends}, "warnings": warnings}}}


HELD = reading("held_credits", 0, **DEFAULT)
STATES: dict[str, tuple[str, Seen]] = {
    "TallyhookInboxOld": ("ages", Seen([reading("inbox_oldest_seconds", 121)])),
    "TallyhookPollsOverdue": ("ages", Seen([reading("poll_overdue_seconds", 301)])),
    "TallyhookRetentionNear": ("ages", Seen([reading("unreported_retention_ratio", 0.76, **DEFAULT)])),
    "TallyhookRelayOld": ("ages", Seen([reading("relay_oldest_seconds", 3_601)])),
    "TallyhookArchiveLate": ("ages", Seen([reading("archive_lag_seconds", 21_601)])),
    "TallyhookUnknownCredits": ("ages", Seen([reading("unknown_credits", 101, **DEFAULT)])),
    "TallyhookRunsHalted": ("runs", Seen([reading("runs", 2, state="paused", **DEFAULT)])),
    "TallyhookNothingSent": (
        "sending",
        Seen([reading("pending_oldest_seconds", 601, **DEFAULT)], {"default": 601.0}),
    ),
    "TallyhookNoDeliveries": (
        "receiving",
        Seen(
            [
                tasks("submitted"),
                reading("last_delivery_seconds", 901),
                reading("unreported_oldest_seconds", 901, **DEFAULT),
            ]
        ),
    ),
    "TallyhookDeliveriesLost": ("lost deliveries", Seen([], lost=1)),
    "TallyhookRelaySetAside": ("relay", Seen([reading("relay_endpoints", 1, state="set_aside")])),
    "TallyhookBalanceUnknown": (
        "balance age",
        Seen([tasks("pending"), reading("balance_age_seconds", 1_801, **DEFAULT)]),
    ),
    "TallyhookCreditsEnd": (
        "forecast",
        Seen([HELD], sheets=sheet(ends="2027-01-15T10:00:00.000Z"), now_s=NOW_S),
    ),
    "TallyhookCreditsEndBeforeRuns": ("forecast", Seen([HELD], sheets=sheet(kind="credits.short"))),
    "TallyhookDrift": ("drift", Seen([HELD], sheets=sheet(explained=False))),
}
WELL = Seen(
    [
        tasks("submitted"),
        reading("runs", 3, state="running", **DEFAULT),
        reading("runs", 0, state="paused", **DEFAULT),
        reading("pending_oldest_seconds", 90_000, **DEFAULT),
        reading("last_delivery_seconds", 90_000),
        reading("unreported_oldest_seconds", 30, **DEFAULT),
        reading("balance_age_seconds", 60, **DEFAULT),
        reading("relay_endpoints", 4, state="active"),
    ],
    {"default": 2.0},
    0,
    sheet(ends="2027-03-01T00:00:00.000Z", kind="slots.high"),
    NOW_S,
)


def process(*samples: tuple[str, dict[str, str], float], age_s: float = 600.0) -> Process:
    found = {(name, frozenset(labels.items())): value for name, labels, value in samples}
    found["process_start_time_seconds", frozenset()] = NOW_S - age_s
    found[scraped.INFO, frozenset({("process", "web")})] = 1
    return Process("http://127.0.0.1:9464", found, (), NOW_S)


def histogram(name: str, within: str, count: float, every: float) -> Process:
    return process((f"{name}_bucket", {"le": within}, count), (f"{name}_count", {}, every))


PROCESSES = {
    "TallyhookSignaturesRefused": process(
        ("tallyhook_deliveries_refused_total", {"reason": "mismatch"}, 30), age_s=300
    ),
    "TallyhookOldSecret": process(("tallyhook_deliveries_old_secret_total", {}, 3), age_s=90_000),
    "TallyhookCommitsFail": process(("tallyhook_inbox_commit_failures_total", {}, 5)),
    "TallyhookCommitsSlow": histogram("tallyhook_inbox_commit_seconds", "1.0", 90, 100),
    "TallyhookDatabaseFails": process(("tallyhook_database_failures_total", {"kind": "short"}, 9)),
    "TallyhookRedisFails": process(("tallyhook_redis_failures_total", {}, 9)),
    "TallyhookLoopLate": histogram("tallyhook_loop_lag_seconds", "0.5", 90, 100),
    "TallyhookApiFails": process(
        ("tallyhook_api_requests_total", {"status": "503"}, 6),
        ("tallyhook_api_requests_total", {"status": "200"}, 94),
    ),
    "TallyhookRateRefused": process(("tallyhook_provider_requests_total", {"status": "429"}, 50)),
    "TallyhookDutyFails": process(("tallyhook_duty_failures_total", {"duty": "sweep"}, 9)),
}
STANDING = process(("tallyhook_duty_last_turn_timestamp_seconds", {"duty": "sweep"}, NOW_S - 700))


def looked(seen: Seen) -> list[Check]:
    return [*judge_ages(seen.readings), *standstills(seen)]


def test_each_alert_has_its_check() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    of_others = {"TallyhookDutyStandsStill", "TallyhookPartitionsMissing"}
    assert set(PROCESSES) == set(LOOKS)
    found = [*ELSEWHERE, *STATES, *PROCESSES, *of_others]
    assert sorted(found) == sorted(alerts)


@pytest.mark.parametrize("alert", STATES)
def test_a_state_is_found_and_said_with_what_to_do(alert: str) -> None:
    name, seen = STATES[alert]
    (check,) = looked(seen)
    assert (check.name, check.state in ("warning", "fault")) == (name, True)
    assert check.detail
    assert check.remedy


def test_what_is_as_it_should_be_is_no_state() -> None:
    assert looked(WELL) == []


def test_whose_state_it_is_is_said() -> None:
    (check,) = looked(Seen([reading("runs", 1, account="eu", state="stopped")]))
    assert (check.name, check.detail) == ("runs of eu", "not over, and at rest: 1 stopped")


@pytest.mark.parametrize("alert", PROCESSES)
def test_what_only_a_process_counts_is_found(alert: str) -> None:
    (check,) = judge_processes([PROCESSES[alert]])
    assert (check.name, check.state) == ("web at http://127.0.0.1:9464", "warning")
    assert check.remedy == LOOKS[alert][1]


def test_a_duty_that_stands_still_in_every_worker_is_found() -> None:
    moves = process(("tallyhook_duty_last_turn_timestamp_seconds", {"duty": "sweep"}, NOW_S - 3))
    (check,) = judge_processes([STANDING])
    assert (check.name, check.state) == ("duties", "fault")
    (check,) = judge_processes([STANDING, moves])
    assert check.state == "ok"


def test_one_failure_at_the_start_is_no_flood() -> None:
    few = process(
        ("tallyhook_deliveries_refused_total", {"reason": "mismatch"}, 9),
        ("tallyhook_deliveries_old_secret_total", {}, 9),
        age_s=2,
    )
    (check,) = judge_processes([few])
    assert (check.state, check.detail) == ("ok", "nothing goes wrong in web at http://127.0.0.1:9464")


def test_partitions_that_will_soon_be_short_are_said() -> None:
    details = [[c.detail for c in check_partitions(PartitionState(days, False))] for days in (-1, 0, 1, 2)]
    assert details == [["today has none"], ["tomorrow has none"], ["the day after tomorrow has none"], []]
