"""What the doctor says of work that stands still, and of credits: each state that the alerts of
deploy/prometheus know and more than one gauge tells. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.cli.doctor.check import Check
from app.config import DEFAULT_ACCOUNT
from app.domain.state_gauges import Reading
from app.domain.text import counted

SENT_WITHIN_S = 600.0
DELIVERED_WITHIN_S = 900.0
BALANCE_AGE_S_MAX = 1_800.0
CREDITS_LAST_S_MIN = 3 * 86_400.0
OPEN = ("pending", "submitting", "submitted")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of the whole at one time."""

    readings: list[Reading]
    accepted_s: Mapping[str, float] = field(default_factory=dict)
    """Account -> since the provider accepted a task of it."""
    lost: int = 0
    """Deliveries of the last hour that had their 2xx and are not stored."""
    sheets: Mapping[str, Any] = field(default_factory=dict)
    """Account -> what its last audit found (views/sheets.py)."""
    now_s: float = 0.0
    """Unix time."""

    def most(self, name: str, **labels: str) -> float:
        """Of all readings of a gauge with these labels; 0: there are none."""
        found = (r.value for r in self.readings if r.name == name and labels.items() <= r.labels.items())
        return max(found, default=0.0)

    def accounts(self) -> list[str]:
        """Those that anything was read of."""
        return sorted({r.labels["account"] for r in self.readings if "account" in r.labels})


def standstills(seen: Seen) -> list[Check]:
    """One for each state that is not as it should be."""
    of_account: tuple[Callable[[Seen, str], Iterable[Check]], ...] = (
        _runs,
        _sending,
        _balance,
        _credits,
        _drift,
    )
    found = [*_receiving(seen), *_lost(seen), *_relay(seen)]
    for account in seen.accounts():
        found += [check for look in of_account for check in look(seen, account)]
    return found


def _named(what: str, account: str) -> str:
    return what if account == DEFAULT_ACCOUNT else f"{what} of {account}"


def _runs(seen: Seen, account: str) -> Iterable[Check]:
    halted = {state: int(seen.most("runs", account=account, state=state)) for state in ("paused", "stopped")}
    parts = [f"{count} {state}" for state, count in halted.items() if count]
    if parts:
        remedy = "tallyhook runs says why; tallyhook resume RUN goes on with one"
        yield Check(_named("runs", account), "warning", f"not over, and at rest: {', '.join(parts)}", remedy)


def _sending(seen: Seen, account: str) -> Iterable[Check]:
    waits_s = seen.most("pending_oldest_seconds", account=account)
    if min(waits_s, seen.accepted_s.get(account, 0.0)) > SENT_WITHIN_S:
        detail = "tasks wait to be sent, and the provider accepted none for ten minutes"
        remedy = "tallyhook status RUN says what it waits for; look at the checks of provider and worker"
        yield Check(_named("sending", account), "fault", detail, remedy)


def _receiving(seen: Seen) -> Iterable[Check]:
    waits_s = min(seen.most("unreported_oldest_seconds"), seen.most("last_delivery_seconds"))
    if waits_s > DELIVERED_WITHIN_S and seen.most("tasks", state="submitted"):
        detail = f"the provider has tasks, and delivered nothing for {waits_s / 60:.0f} min"
        remedy = "look at the check of the webhook, and at what is before PUBLIC_URL; polls bring the reports"
        yield Check("receiving", "fault", detail, remedy)


def _lost(seen: Seen) -> Iterable[Check]:
    if seen.lost:
        what = counted(seen.lost, "delivery", "deliveries")
        detail = f"{what} with a 2xx not stored, found within the last hour"
        remedy = "see whether the database forgets commits, or something else answers at PUBLIC_URL"
        yield Check("lost deliveries", "fault", detail, remedy)


def _relay(seen: Seen) -> Iterable[Check]:
    if count := int(seen.most("relay_endpoints", state="set_aside")):
        detail = (
            f"{counted(count, 'endpoint')} took nothing for so long that nothing is posted there any more"
        )
        yield Check("relay", "warning", detail, "tallyhook relay list says why; tallyhook relay retry ID")


def _balance(seen: Seen, account: str) -> Iterable[Check]:
    age_s = seen.most("balance_age_seconds", account=account)
    is_open = any(seen.most("tasks", account=account, state=state) for state in OPEN)
    if age_s > BALANCE_AGE_S_MAX and is_open:
        detail = f"nobody told a worker the balance for {age_s / 60:.0f} min"
        yield Check(_named("balance age", account), "warning", detail, "look at the log for balance_unknown")


def _credits(seen: Seen, account: str) -> Iterable[Check]:
    ahead = seen.sheets.get(account, {}).get("forecast")
    if not ahead:
        return
    ends = ahead["runs_out"]["likely"]
    left_s = None if ends is None else datetime.fromisoformat(ends).timestamp() - seen.now_s
    told = (warning for warning in ahead["warnings"] if warning["sure"])
    late = [warning["message"] for warning in told if warning["kind"].startswith("credits.")]
    if left_s is not None and left_s < CREDITS_LAST_S_MIN:
        late.insert(0, f"credits likely end at {ends}, before the next reset")
    for message in late:
        yield Check(_named("forecast", account), "warning", message, "tallyhook forecast has the figures")


def _drift(seen: Seen, account: str) -> Iterable[Check]:
    found = seen.sheets.get(account, {}).get("audit")
    if found and not found["explained"]:
        detail = (
            f"{counted(found['unexplained'], 'credit')} cannot be explained, at the audit of {found['at']}"
        )
        yield Check(_named("drift", account), "warning", detail, "tallyhook audit shows where they went")
