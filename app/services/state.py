"""Reads the state of the whole as gauges: what operations alert on. Decides and writes nothing."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.state_gauges import Reading
from app.domain.time_format import DAY_MS
from app.limits import Limits

if TYPE_CHECKING:
    from app.services.forecast import AccountForecast
    from app.store import Store
    from app.store.read.state import State


async def read_state(
    store: "Store", accounts: Iterable[str], limits: Limits, *, has_archive: bool
) -> list[Reading]:
    """Every reading of one look."""
    state = await store.state.state()
    now = state.now_ms
    found = [
        Reading("state_read_timestamp_seconds", now / 1000),
        Reading("inbox_oldest_seconds", _age_s(state.waiting_ms, now)),
        Reading("poll_overdue_seconds", _age_s(state.poll_due_ms, now)),
        Reading("relay_oldest_seconds", _age_s(state.relay_ms, now)),
        Reading("deliveries_set_aside", await store.set_aside.set_aside_count()),
        *_counts("processes", "kind", state.processes),
        *_counts("relay_endpoints", "state", state.relay_endpoints),
        *_counts("lease_held", "lease", state.leases),
    ]
    if state.delivered_ms is not None:
        found.append(Reading("last_delivery_seconds", _age_s(state.delivered_ms, now)))
    unknown = await store.state.unknown_credits()
    for account in sorted(accounts):
        found += _of_account(state, account, limits, unknown.get(account, Decimal(0)))
        found += await _balance(store, account, now)
    found += await _days(store, now, limits, has_archive=has_archive)
    return found


def _of_account(state: "State", account: str, limits: Limits, unknown: Decimal) -> list[Reading]:
    now, of_account = state.now_ms, {"account": account}
    unreported_s = _age_s(state.unreported_ms.get(account), now)
    ratio = unreported_s / limits.retention_s
    return [
        Reading("pending_oldest_seconds", _age_s(state.pending_ms.get(account), now), of_account),
        Reading("unreported_oldest_seconds", unreported_s, of_account),
        Reading("unreported_retention_ratio", ratio, of_account),
        Reading("held_credits", float(state.held.get(account, 0)), of_account),
        Reading("unknown_credits", float(unknown), of_account),
        *(
            Reading(name, count, of_account | {"state": kind})
            for name, counts in (("runs", state.runs), ("tasks", state.tasks))
            for (owner, kind), count in counts.items()
            if owner == account
        ),
    ]


async def _balance(store: "Store", account: str, now: int) -> list[Reading]:
    balance = await store.accounts.last_balance(account, now)
    if balance is None:
        return []
    of_account = {"account": account}
    return [
        Reading("balance_credits", float(balance.remaining), of_account),
        Reading("balance_age_seconds", _age_s(balance.at_ms, now), of_account),
    ]


async def _days(store: "Store", now: int, limits: Limits, *, has_archive: bool) -> list[Reading]:
    """Whether tomorrow has its partition, and the archive every day that is due."""
    found = []
    partitions = await store.partitions.partition_state(now)
    if partitions is not None:
        ahead = -1 if partitions.has_rows_in_default else partitions.days_ahead
        found.append(Reading("partition_days_ahead", ahead))
    if has_archive:
        day_ms = await store.partitions.next_day(await store.state.archived_until())
        due_ms = None if day_ms is None else day_ms + DAY_MS * (1 + limits.archive_after_days)
        found.append(Reading("archive_lag_seconds", _age_s(due_ms, now)))
    return found


def forecast_readings(account: str, seen: "AccountForecast") -> list[Reading]:
    """What the forecast of an account says."""
    ahead, of_account = seen.forecast, {"account": account}
    now, burn = ahead.now_ms, sum((each.credits_per_hour for each in ahead.burn), Decimal(0))
    found = [Reading("burn_credits_per_hour", float(burn), of_account)]
    ends = ahead.runs_out
    for estimate, at_ms in (("earliest", ends.low), ("likely", ends.likely), ("latest", ends.high)):
        if at_ms is not None:
            left_s = max(at_ms - now, 0) / 1000
            found.append(Reading("credits_end_seconds", left_s, of_account | {"estimate": estimate}))
    if ended := [run.ends.likely for run in ahead.runs if run.ends.likely is not None]:
        found.append(Reading("runs_end_seconds", max(max(ended) - now, 0) / 1000, of_account))
    for state, count in (("max", seen.use.slots), ("used", seen.use.slots_used)):
        if count is not None:
            found.append(Reading("slots", count, of_account | {"state": state}))
    return found


def _counts(name: str, label: str, counts: Mapping[str, int]) -> list[Reading]:
    return [Reading(name, count, {label: key}) for key, count in counts.items()]


def _age_s(at_ms: int | None, now_ms: int) -> float:
    """0: there is none, or it lies ahead."""
    return 0.0 if at_ms is None else max(now_ms - at_ms, 0) / 1000
