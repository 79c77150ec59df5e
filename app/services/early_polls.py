"""Polls of a run's last tasks are brought forward when these are late by the run's own measure."""

from typing import TYPE_CHECKING

from app.domain.early_polls import Late, late_after_ms, sampled_ordinals, waits_ms

if TYPE_CHECKING:
    from app.store import Store


async def bring_polls_forward(store: "Store", *, now_ms: int, interval_ms: int, limit: int) -> int:
    """How many tasks are due to be asked for now that were not; at most `limit`. `interval_ms`: that of the
    regular polls, by which is known when the last one was."""
    late = []
    for run_id, last, engines in await store.early_polls.runs_nearly_in():
        times = await store.early_polls.report_times(run_id, sampled_ordinals(last))
        of_run = [ms for _, ms in times]
        for engine in engines:
            late_ms = late_after_ms([ms for name, ms in times if name == engine], of_run)
            late.append(Late(run_id, engine, waits_ms(late_ms)))
    return await store.early_polls.bring_polls_forward(
        late, now_ms=now_ms, interval_ms=interval_ms, limit=limit
    )
