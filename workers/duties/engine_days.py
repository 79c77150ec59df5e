"""Counts what engines did on each day, from results as they are settled; two workers at once do no harm."""

from app.domain.time_format import DAY_MS
from app.store.write.engine_days import COUNTED_MAX
from workers.context import Context
from workers.periodic import run_every

EVERY_S = 10.0
CALLS_MAX = 200
"""In one turn; with what is left the next one goes on."""


async def run_engine_days(context: Context) -> None:
    """Look every few seconds until the process stops."""
    forgotten_ms = 0

    async def turn() -> int:
        nonlocal forgotten_ms
        now = context.clock()
        if now - forgotten_ms >= DAY_MS:
            await context.store.engine_days.forget_engine_days(now)
            forgotten_ms = now
        return await count_days(context)

    await run_every(
        turn, name="engine_days", every_s=EVERY_S, stopping=context.stopping, watch=context.signals
    )


async def count_days(context: Context) -> int:
    """Count what is not counted; how many results."""
    counted = 0
    for _ in range(CALLS_MAX):
        count = await context.store.engine_days.count_results(context.settings.usable_chars_min)
        counted += count
        if count < COUNTED_MAX or context.stopping.is_set():
            break
    return counted
