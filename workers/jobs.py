"""The jobs: parse the payload, call what works. What fails for now is retried; the rows remember the rest.

A job's plain exception is final in arq, and so is its timeout (A1, A2); so every job runs inside `guarded`.
"""

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from arq.typing import WorkerCoroutine
from arq.worker import Retry

from app.ports import StoreUnavailable
from app.queue import PAYLOAD_VERSION
from workers.context import Context
from workers.sending import start_sending
from workers.settling import settle_now

log = structlog.get_logger(__name__)

IDS_MAX = 5_000
"""No job of ours carries more; a longer list is not one of ours."""
REASON_CHARS_MAX = 200
MARGIN_S = 5
"""Our own timeout ends a job before arq's would, because arq's is final (A2)."""
DEFER_FACTOR_MAX = 12
"""Trouble that lasts is tried each 12 to 60 s; the sweep looks for what is due all the same."""

Job = Callable[[Context, dict[str, Any]], Coroutine[Any, Any, None]]


def guarded(job: Job) -> WorkerCoroutine:
    """Turn trouble that passes into arq's Retry, and every other error into a log line: the rows of the job
    are unchanged, and the sweep finds them."""

    @functools.wraps(job)
    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
        context: Context = ctx["tallyhook"]
        try:
            timeout_s = context.settings.job_timeout_s
            async with asyncio.timeout(max(timeout_s - MARGIN_S, timeout_s / 2)):
                await job(context, *args, **kwargs)
        except (StoreUnavailable, TimeoutError) as error:
            context.signals.note_job(job.__name__, "retried")
            defer_s = (1 + 4 * random.random()) * min(ctx.get("job_try", 1), DEFER_FACTOR_MAX)  # noqa: S311
            log.warning(
                "job_retried",
                job=job.__name__,
                error=type(error).__name__,
                reason=str(error)[:REASON_CHARS_MAX],
                defer_s=round(defer_s, 1),
            )
            raise Retry(defer=defer_s) from error
        except Exception:
            context.signals.note_job(job.__name__, "failed")
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


@guarded
async def submit_job(context: Context, payload: dict[str, Any]) -> None:
    """Start sending what is due, unless this process already sends."""
    if payload.get("v") != PAYLOAD_VERSION:
        log.error("job_payload_unknown", job="submit", version=payload.get("v"))
        return
    start_sending(context)
