"""Faults that are told late, at once: none has to do with another."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from app.domain.delivery import RawDelivery
from app.domain.relay.message import NewEndpoint, new_secret
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.settlement import Source
from app.domain.task import RunState, new_id
from app.domain.time_format import DAY_MS
from tests.e2e.alerts.drill import QUIET, Drill, act, late_report, post_signed
from tests.e2e.stack import KILL
from tests.integration.relay.receiver import Receiver, receiving
from tests.integration.store.scenes import rows
from tests.integration.web.receiving import delivery_body

FUTURE_PARTITIONS = """
    SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'deliveries'::regclass
    AND c.relname LIKE 'deliveries_p%'
    AND c.relname > 'deliveries_p' || to_char(now() + interval '1 day', 'YYYYMMDD')
"""
WAITS: tuple[tuple[str, dict[str, str]], ...] = (
    ("archive_lag_seconds", {}),
    ("relay_oldest_seconds", {}),
    ("relay_endpoints", {"state": "set_aside"}),
    ("runs", {"state": "paused"}),
)
"""Gauges that are 0, or not there, when all is well."""


@act(
    "TallyhookArchiveLate",
    "TallyhookBalanceUnknown",
    "TallyhookPartitionsMissing",
    "TallyhookRelayOld",
    "TallyhookRelaySetAside",
    "TallyhookRunsHalted",
    "TallyhookUnknownCredits",
)
async def long_faults(drill: Drill) -> None:
    """Those that are told late, at once: none has to do with another."""
    async with receiving() as receiver:
        await _meet_long_faults(drill, receiver)


async def _meet_long_faults(drill: Drill, receiver: Receiver) -> None:
    stack, archive, paused, held = drill.stack, drill.folder / "archive", list[str](), list[dict[str, Any]]()

    async def fault() -> None:
        paused.append(await drill.submit(3, begin=False))
        await stack.begin()
        by_hand = RunReason(ReasonCode.BY_HAND, "a person paused it")
        await stack.store.runs.halt_run_if_running(paused[0], RunState.PAUSED, by_hand)
        await _break_archive(drill, archive)
        await _push_in_vain(drill, receiver)
        for row in await rows(stack.store, FUTURE_PARTITIONS):
            await drill.sql(f"DROP TABLE {row['name']}")
        held.extend(await _be_forgotten(drill))
        # As if they had been settled an hour before.
        await drill.sql("UPDATE relay_messages SET at_ms = at_ms - 60000")
        await asyncio.sleep(3)

    async def cure() -> None:
        drill.command("resume", paused[0])
        archive.unlink()
        receiver.always = 204
        for row in await rows(stack.store, "SELECT id FROM relay_endpoints"):
            drill.command("relay", "retry", str(UUID(row["id"])))
        for row in held:
            assert await post_signed(drill, late_report(row)) == 200
        await drill.restart("worker")
        await drill.until_settled(paused[0])
        await stack.until(_is_well(drill), "everything to be well", timeout_s=120)

    await drill.meet(fault, cure, lasts_minutes=70, clears_s=3, clears_minutes=12)


async def _break_archive(drill: Drill, archive: Path) -> None:
    """A file in its place, and a day that should be in it. Not before the worker's first look at days, which
    would take the delivery for one that is still to be settled."""
    await drill.until_shown("tallyhook_duty_last_turn_timestamp_seconds", 0, duty="archive")
    shutil.rmtree(archive, ignore_errors=True)
    await asyncio.to_thread(archive.write_text, "in its place")
    now = await drill.stack.store.health.database_ms()
    old = now - 5 * DAY_MS
    row = RawDelivery(new_id(old), Source.DELIVERY, old, delivery_body(5_000))
    await drill.stack.store.inbox.store_deliveries([row], due_at_ms=now)


async def _push_in_vain(drill: Drill, receiver: Receiver) -> None:
    """To one endpoint that wants no more, and to one that never takes anything."""
    for answer, place in ((410, receiver.url), (503, f"{receiver.url}?second")):
        receiver.always = answer
        await drill.until_settled(await drill.submit(2, push_to=NewEndpoint(place, new_secret())))
        await asyncio.sleep(3)


async def _be_forgotten(drill: Drill) -> list[dict[str, Any]]:
    """By a provider that is away for 40 minutes; what it had."""
    stack = drill.stack
    await drill.restart_emulator("--time-scale", "0.5", "--concurrency", "200")
    run_id = await drill.submit(40)

    async def sent() -> bool:
        return (await stack.store.queries.progress(run_id)).states.get("submitted") == 40

    await stack.until(sent, "all sent")
    stack.end("emulator", KILL)
    # As if it had been away for twenty minutes; then for so many more.
    await drill.sql("UPDATE balances SET at_ms = at_ms - 20000")
    await asyncio.sleep(18)
    await drill.restart_emulator(*QUIET)
    await drill.until_settled(run_id)
    return await rows(stack.store, "SELECT * FROM tasks WHERE run_id = :run", run=UUID(run_id))


def _is_well(drill: Drill) -> Callable[[], Awaitable[bool]]:
    async def is_well() -> bool:
        waits = any(drill.shown(f"tallyhook_{name}", **labels) for name, labels in WAITS)
        unknown = drill.shown("tallyhook_unknown_credits")
        return not waits and unknown <= 100 and drill.shown("tallyhook_partition_days_ahead") >= 2

    return is_well
