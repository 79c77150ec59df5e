"""The sending task of a worker process: submits what is due, each account by itself.

It outlives the job that started it: a run may take hours, and a job must be short (A6).
"""

import asyncio
import uuid

import structlog

from app.config import Settings
from app.ports import StoreUnavailable
from app.provider.client import TURN_WAIT_MAX_S
from app.services.admission import Admission, UnknownBalance
from app.services.reachability import Reachability
from app.services.submit import submit
from workers.context import Context

log = structlog.get_logger(__name__)

EXTENSION_SHARE = 1 / 60
"""By so much of itself at least is a limit extended: it is asked for at every request."""


def start_sending(context: Context) -> "asyncio.Task[None]":
    """The sending task of this process; started if none runs."""
    if context.sending is None or context.sending.done():
        context.sending = asyncio.create_task(_send_until_done(context))
    return context.sending


async def _send_until_done(context: Context) -> None:
    """Send until nothing is due; then enqueue a job for what is due later."""
    try:
        again_in_ms: int | None = 0
        while again_in_ms == 0 and not context.stopping.is_set():
            again_in_ms = await submit_now(context)
        if again_in_ms is not None and not context.stopping.is_set():
            await context.queue.wake_submit(again_in_ms)
    except StoreUnavailable as error:
        log.warning("store_unavailable", error=str(error)[:200])  # the wakes start it again
    except Exception:
        log.exception("sending_failed")


def hung_after_s(settings: Settings) -> float:
    """A call of submit that claims nothing and ends no request for so long hangs: each wait in it has its own
    limit, and no step has more than two requests and three transactions."""
    return 2 * (settings.request_timeout_s + TURN_WAIT_MAX_S) + 3 * settings.database_timeout_s


async def submit_now(context: Context) -> int | None:
    """Send what is due of every account, in parallel; an account that another process sends for is left to
    it. Returns in how many ms there will be more to send; None: nothing known."""
    if context.address is not None:
        await context.address.until_known(context.stopping)
    started: dict[str, asyncio.Task[int | None]] = {}
    due = await context.store.queries.accounts_with_due(context.clock())
    try:
        while True:
            # An account that has something only now need not wait until the others have sent all of theirs.
            for account in due:
                if account in context.providers and (account not in started or started[account].done()):
                    started[account] = asyncio.create_task(_submit_isolated(context, account), name=account)
            running = [task for task in started.values() if not task.done()]
            if not running or not (await asyncio.wait(running, timeout=context.settings.sweep_every_s))[1]:
                waits = [task.result() for task in started.values()]
                return min((wait_ms for wait_ms in waits if wait_ms is not None), default=None)
            try:
                due = await context.store.queries.accounts_with_due(context.clock())
            except StoreUnavailable:
                due = []  # those that run find out for themselves
    finally:
        for task in started.values():
            task.cancel()
        await asyncio.gather(*started.values(), return_exceptions=True)


async def _submit_isolated(context: Context, account: str) -> int | None:
    """submit_account, whose errors are logged and stop no other account. It is started again when its tasks
    are still due at the next look."""
    try:
        return await submit_account(context, account)
    except StoreUnavailable as error:
        log.warning("store_unavailable", account=account, error=str(error)[:200])
    except Exception:
        log.exception("sending_failed", account=account)
    return None


def reachability_of(context: Context, account: str) -> Reachability:
    """What this process knows about reaching the provider with an account."""
    pause_after_ms = round(context.settings.gateway_pause_s * 1000)
    return context.reachabilities.setdefault(account, Reachability(pause_after_ms))


def _admission_of(context: Context, account: str) -> Admission:
    """An account's admission of this process."""
    if account not in context.admissions:
        context.admissions[account] = Admission(
            account,
            context.store,
            context.providers[account],
            clock=context.clock,
            drain_target_s=context.settings.drain_target_s,
            budget_per_month=context.settings.all_accounts()[account].budget_per_month,
            unknown=UnknownBalance(
                round(context.settings.balance_age_max_s * 1000), context.settings.balance_unknown == "send"
            ),
        )
    return context.admissions[account]


async def submit_account(context: Context, account: str) -> int | None:
    """Send what is due of one account; returns as submit_now. Cut short and begun again when it hangs."""
    provider = context.providers[account]
    hung_s, monotonic_s = hung_after_s(context.settings), asyncio.get_running_loop().time
    limit = asyncio.timeout(hung_s)

    def extend_limit() -> None:
        to_s, at_s = monotonic_s() + hung_s, limit.when()
        if not limit.expired() and at_s is not None and to_s - at_s >= hung_s * EXTENSION_SHARE:
            limit.reschedule(to_s)

    try:
        async with limit:
            summary = await submit(
                context.store,
                provider,
                account=account,
                admission=_admission_of(context, account),
                reach=reachability_of(context, account),
                limits=context.settings,
                clock=context.clock,
                jitter=context.jitter,
                token=uuid.uuid4().hex,
                stopping=context.stopping.is_set,
                went_on=extend_limit,
                on_end=lambda answer: context.signals.note_send(account, answer.value),
            )
    except TimeoutError:
        if not limit.expired():
            raise
        # Begun again at once: its lease was given back, or keeps others out until it ends.
        log.error("sender_hung", account=account)
        return 0
    if summary.answers:
        counts = {answer.value: count for answer, count in summary.answers.items()}
        log.info("submitted", account=account, **counts)
    return summary.again_in_ms
