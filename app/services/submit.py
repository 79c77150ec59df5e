"""Submitting: claim pending tasks, send one request for each, record how it ended."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.domain.send_outcome import Answer
from app.limits import Limits, to_ms
from app.ports import Clock, Jitter, Provider, StoreUnavailable
from app.services.admission import Admission
from app.services.reachability import Reachability
from app.services.sender import Sender, SubmitSummary

if TYPE_CHECKING:
    from app.store import Store

__all__ = ["SubmitSummary", "submit"]

LEASE = "submit:"
"""And the account's name; with several senders, a number for each beyond the first."""
NO_ROOM_WAIT_MS = 1_000
"""When the provider has as much of the account's work as it may, how long until it is asked again."""


async def submit(
    store: "Store",
    provider: Provider,
    *,
    account: str = "default",
    admission: Admission | None = None,
    reach: Reachability | None = None,
    limits: Limits,
    clock: Clock,
    jitter: Jitter,
    token: str,
    stopping: Callable[[], bool] = lambda: False,
    went_on: Callable[[], None] = lambda: None,
    on_end: Callable[[Answer], None] = lambda _: None,
) -> SubmitSummary:
    """Send what is due of one account, until nothing is, the time of one job is over, or `stopping`.
    `token` names this call; it is the owner of the lease and of the claims. Without `admission` the
    provider's queue and balance are not looked at before. `reach` is what earlier calls of this process
    learnt of the account's way to the provider. `went_on` is called at each step: whoever hears nothing of it
    for longer than a step takes knows that the call hangs. `on_end` is told how each send of a task ended."""
    reach = reach or Reachability()
    if rest_ms := reach.resting_ms(clock()):
        return SubmitSummary(again_in_ms=rest_ms)
    lease = await _free_lease(store, account, limits, clock(), token)
    if lease is None:
        return SubmitSummary(busy=True)
    sender = Sender(
        store,
        provider,
        account,
        admission,
        reach,
        lease,
        limits,
        clock,
        jitter,
        token,
        stopping,
        went_on,
        on_end,
    )
    try:
        await sender.run()
    except ExceptionGroup as group:
        raise _plain(group) from group
    finally:
        await store.runs.release_lease(lease, token)
    if not sender.is_held_up() and account in await store.queries.accounts_with_due(clock()):
        sender.summary.again_in_ms = 0 if sender.has_room else NO_ROOM_WAIT_MS
    return sender.summary


async def _free_lease(store: "Store", account: str, limits: Limits, now: int, token: str) -> str | None:
    until_ms = now + to_ms(limits.submit_lease_s)
    for number in range(limits.senders):
        lease = f"{LEASE}{account}:{number}" if number else LEASE + account
        if await store.runs.acquire_lease(lease, token, until_ms=until_ms, now_ms=now):
            return lease
    return None


def _plain(group: ExceptionGroup[Exception]) -> Exception:
    """The store's absence as itself, so that the caller can distinguish it from a bug."""
    away, other = group.split(StoreUnavailable)
    return StoreUnavailable("while submitting") if away is not None and other is None else group
