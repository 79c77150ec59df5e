"""The jobs: parse the payload, call a service. What fails for now is retried; the rows remember the rest.

A job's plain exception is final in arq, and so is its timeout (A1, A2); so every job runs inside `guarded`.
"""

import asyncio
import functools
import random
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from arq.typing import WorkerCoroutine
from arq.worker import Retry

from app.config import Settings
from app.ports import Clock, Jitter, StoreUnavailable
from app.provider.client import TURN_WAIT_MAX_S, Client
from app.provider.wire import read_report
from app.queue import PAYLOAD_VERSION, Queue
from app.services.admission import Admission, UnknownBalance
from app.services.reachability import Reachability
from app.services.settle import SettleSummary, settle
from app.services.submit import SubmitLimits, submit
from app.store import Store

log = structlog.get_logger(__name__)

IDS_MAX = 5_000
"""No job of ours carries more; a longer list is not one of ours."""
SETTLES_AT_ONCE = 3
"""Of one process: while one group is in the database, the next is unpacked and read. More would be no faster,
and each holds some 10 MB of answers."""
ERROR_CHARS_TOLD = 200
MARGIN_S = 5
"""Our own timeout ends a job before arq's would, because arq's is final (A2)."""


@dataclass(slots=True)
class Context:
    """What jobs work with; made once per process."""

    settings: Settings
    store: Store
    providers: Mapping[str, Client]
    """By account name."""
    queue: Queue
    submit_limits: SubmitLimits
    clock: Clock
    jitter: Jitter
    admissions: dict[str, Admission] = field(default_factory=dict)
    """By account name; made at first use."""
    reaches: dict[str, Reachability] = field(default_factory=dict)
    """The same."""
    settling: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SETTLES_AT_ONCE))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    sending: "asyncio.Task[None] | None" = None


DEFER_FACTOR_MAX = 12
"""Trouble that lasts is tried each 12 to 60 s; the sweep looks for what is due all the same."""

Job = Callable[[Context, dict[str, Any]], Coroutine[Any, Any, None]]


def guarded(job: Job) -> WorkerCoroutine:
    """Turn what passes by itself into arq's Retry, and everything else into a log line: the rows that the
    job was to work on are still waiting, and the sweep looks for them."""

    @functools.wraps(job)
    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
        context: Context = ctx["tallyhook"]
        try:
            timeout_s = context.settings.job_timeout_s
            async with asyncio.timeout(max(timeout_s - MARGIN_S, timeout_s / 2)):
                await job(context, *args, **kwargs)
        except (StoreUnavailable, TimeoutError) as error:
            defer_s = (1 + 4 * random.random()) * min(ctx.get("job_try", 1), DEFER_FACTOR_MAX)  # noqa: S311
            log.warning(
                "job_retried",
                job=job.__name__,
                error=type(error).__name__,
                reason=str(error)[:ERROR_CHARS_TOLD],
                defer_s=round(defer_s, 1),
            )
            raise Retry(defer=defer_s) from error
        except Exception:
            log.exception("job_failed", job=job.__name__)

    return run


@guarded
async def settle_job(context: Context, payload: dict[str, Any]) -> None:
    """Settle the deliveries named in the payload."""
    ids = payload.get("ids")
    if payload.get("v") != PAYLOAD_VERSION or not isinstance(ids, list) or len(ids) > IDS_MAX:
        log.error("job_payload_unknown", job="settle", version=payload.get("v"))
        return
    await settle_now(context, ids)


async def settle_now(
    context: Context, ids: Sequence[str], *, slots: asyncio.Semaphore | None = None
) -> SettleSummary:
    """Settle in this process, in transactions of bounded size. `slots`: how many at once; None: with all jobs
    of the process together."""
    size = context.settings.settle_size
    total = SettleSummary()
    for start in range(0, len(ids), size):
        async with slots or context.settling:
            part = await settle(
                context.store,
                read_report,
                ids[start : start + size],
                clock=context.clock,
                unmatched_ms=round(context.settings.unmatched_s * 1000),
            )
        tell_set_aside(part.set_aside)
        for delivery_id, error in part.held_up.items():
            # What a rule of ours failed at may quote an answer.
            said = error if error.startswith("Store") else error.split(": ")[0]
            log.error("delivery_held_up", id=delivery_id, error=said[:ERROR_CHARS_TOLD])
        total.merge(part)
    log.info("settled", deliveries=len(ids), settled=total.settled, quarantined=total.quarantined)
    return total


def tell_set_aside(errors: Mapping[str, str]) -> None:
    """One line for each delivery that waits for a person now."""
    for delivery_id, error in errors.items():
        log.error("delivery_set_aside", id=delivery_id, error=error[:ERROR_CHARS_TOLD])


@guarded
async def submit_job(context: Context, payload: dict[str, Any]) -> None:
    """Begin to send what is due, unless this process already does. Sending goes on beside the job: a run may
    take hours, and a job must be short (A6)."""
    if payload.get("v") != PAYLOAD_VERSION:
        log.error("job_payload_unknown", job="submit", version=payload.get("v"))
        return
    begin_sending(context)


def begin_sending(context: Context) -> "asyncio.Task[None]":
    """The task of this process that sends; started if there is none."""
    if context.sending is None or context.sending.done():
        context.sending = asyncio.create_task(_send_all(context))
    return context.sending


async def _send_all(context: Context) -> None:
    """Send until nothing is due, then see to it that somebody sends what is due later."""
    try:
        again_in_ms: int | None = 0
        while again_in_ms == 0 and not context.stopping.is_set():
            again_in_ms = await submit_now(context)
        if again_in_ms is not None and not context.stopping.is_set():
            await context.queue.wake_submit(again_in_ms)
    except StoreUnavailable as error:
        log.warning("store_unavailable", error=str(error)[:200])  # the sweep begins again
    except Exception:
        log.exception("sending_failed")


def hung_after_s(settings: Settings) -> float:
    """A call of submit that claims nothing and ends no request for so long is hung: each wait in it has a
    limit of its own, and no step has more than two requests and three transactions."""
    return 2 * (settings.request_timeout_s + TURN_WAIT_MAX_S) + 3 * settings.database_timeout_s


async def submit_now(context: Context) -> int | None:
    """Send in this process what is due of every account, side by side; an account that another process is
    sending for is left to it. In how many ms there will be more to send; None: nothing that we know of."""
    begun: dict[str, asyncio.Task[int | None]] = {}
    due = await context.store.queries.accounts_with_due(context.clock())
    try:
        while True:
            # An account that has something only now need not wait until the others have sent all of theirs.
            for account in due:
                if account in context.providers and (account not in begun or begun[account].done()):
                    begun[account] = asyncio.create_task(_submit_alone(context, account), name=account)
            under_way = [task for task in begun.values() if not task.done()]
            if (
                not under_way
                or not (await asyncio.wait(under_way, timeout=context.settings.sweep_every_s))[1]
            ):
                waits = [task.result() for task in begun.values()]
                return min((wait_ms for wait_ms in waits if wait_ms is not None), default=None)
            try:
                due = await context.store.queries.accounts_with_due(context.clock())
            except StoreUnavailable:
                due = []  # those under way find out for themselves
    finally:
        for task in begun.values():
            task.cancel()
        await asyncio.gather(*begun.values(), return_exceptions=True)


async def _submit_alone(context: Context, account: str) -> int | None:
    """As submit_now, of one account; what fails is told here. It is begun again when the next look finds its
    work unclaimed, and the others go on."""
    try:
        return await _submit_account(context, account)
    except StoreUnavailable as error:
        log.warning("store_unavailable", account=account, error=str(error)[:200])
    except Exception:
        log.exception("sending_failed", account=account)
    return None


def reach_of(context: Context, account: str) -> Reachability:
    """What this process knows of an account's way to the provider."""
    pause_after_ms = round(context.settings.gateway_pause_s * 1000)
    return context.reaches.setdefault(account, Reachability(pause_after_ms))


async def _submit_account(context: Context, account: str) -> int | None:
    provider = context.providers[account]
    if account not in context.admissions:
        context.admissions[account] = Admission(
            account,
            context.store,
            provider,
            clock=context.clock,
            drain_target_s=context.settings.drain_target_s,
            budget_per_month=context.settings.all_accounts()[account].budget_per_month,
            unknown=UnknownBalance(
                round(context.settings.balance_age_max_s * 1000), context.settings.balance_unknown == "send"
            ),
        )
    hung_s, monotonic_s = hung_after_s(context.settings), asyncio.get_running_loop().time
    limit = asyncio.timeout(hung_s)

    def went_on() -> None:
        if not limit.expired():
            limit.reschedule(monotonic_s() + hung_s)

    try:
        async with limit:
            summary = await submit(
                context.store,
                provider,
                account=account,
                admission=context.admissions[account],
                reach=reach_of(context, account),
                limits=context.submit_limits,
                clock=context.clock,
                jitter=context.jitter,
                token=uuid.uuid4().hex,
                stopping=context.stopping.is_set,
                went_on=went_on,
            )
    except TimeoutError:
        if not limit.expired():
            raise
        # Begun again at once: its lease was given back, or keeps others out until it is over.
        log.error("sender_hung", account=account)
        return 0
    if summary.answers:
        counts = {answer.value: n for answer, n in summary.answers.items()}
        log.info("submitted", account=account, **counts)
    return summary.again_in_ms
