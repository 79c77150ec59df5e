"""What the doctor says of what waits for too long: deliveries, polls, results to push, days to archive."""

import json
from dataclasses import dataclass

from app.cli.doctor.check import Check, State
from app.cli.doctor.standstill import Seen, standstills
from app.cli.doctor.stored import asked_of
from app.config import Settings
from app.domain.state_gauges import Reading
from app.services.state import read_state
from app.store import Store

HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class Bound:
    """From which value of a gauge on something is wrong: as the alerts of deploy/prometheus have it."""

    name: str
    above: float
    state: State
    what: str
    """`{}`: how long, or how many."""
    remedy: str


BOUNDS = (
    Bound(
        "inbox_oldest_seconds",
        120,
        "warning",
        "a delivery waits for {} to be settled",
        "look at the log of the workers, and at tallyhook inbox list",
    ),
    Bound(
        "poll_overdue_seconds",
        300,
        "warning",
        "a task whose report is late should have been asked for {} ago",
        "look at the log of the workers: the sweep does not run, or is behind",
    ),
    Bound(
        "unreported_retention_ratio",
        0.75,
        "fault",
        "a task has no report after {} of the time that the provider keeps it",
        "see that deliveries come and polls are answered; then write to the provider with its id",
    ),
    Bound(
        "relay_oldest_seconds",
        HOUR_S,
        "warning",
        "a result waits for {} to be pushed",
        "tallyhook relay list shows where to, and its last error",
    ),
    Bound(
        "archive_lag_seconds",
        6 * HOUR_S,
        "warning",
        "a day should have been archived {} ago",
        "tallyhook archive says what keeps it from it",
    ),
    Bound(
        "unknown_credits",
        100,
        "warning",
        "{} credits are held for work that is over, and nobody reported what it cost",
        "tallyhook report RUN names the tasks; ask the provider",
    ),
)


async def check_ages(settings: Settings) -> list[Check]:
    """One for each that is not as it should be; one in all where none is, and none without a database."""
    seen = await asked_of(settings, lambda store: _read(store, settings))
    if seen is None:
        return []
    found = [*judge(seen.readings), *standstills(seen)]
    return found or [Check("ages", "ok", "nothing waits for longer than it should")]


async def _read(store: Store, settings: Settings) -> Seen:
    """The state, as a worker reads it for whoever scrapes, and what is kept beside it."""
    accounts = settings.all_accounts()
    readings = await read_state(store, accounts, settings, has_archive=bool(settings.archive_url))
    now = await store.health.database_ms()
    accepted = await store.state.accepted_ms()
    sheets = {account: await store.account_sheets.sheet(account) for account in accounts}
    return Seen(
        readings,
        {account: (now - accepted[account]) / 1000 for account in accounts},
        await store.state.lost_since(now - HOUR_S * 1000),
        {account: json.loads(sheet.body) for account, sheet in sheets.items() if sheet is not None},
        now / 1000,
    )


def judge(found: list[Reading]) -> list[Check]:
    """What is out of bounds."""
    checks = []
    for bound in BOUNDS:
        of_gauge = [reading for reading in found if reading.name == bound.name]
        worst = max(of_gauge, key=lambda reading: reading.value, default=None)
        if worst is not None and worst.value > bound.above:
            account = worst.labels.get("account", "default")
            name = "ages" if account == "default" else f"ages of {account}"
            what = bound.what.format(_shown(bound.name, worst.value))
            checks.append(Check(name, bound.state, what, bound.remedy))
    return checks


def _shown(name: str, value: float) -> str:
    if name.endswith("_ratio"):
        return f"{value:.0%}"
    if not name.endswith("_seconds"):
        return f"{value:g}"
    for length_s, unit in ((86_400, "days"), (HOUR_S, "h"), (60, "min")):
        if value >= 2 * length_s:
            return f"{value / length_s:.0f} {unit}"
    return f"{value:.0f} s"
