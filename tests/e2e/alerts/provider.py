"""Faults of the provider's, or of the way to it and back."""

import asyncio

from app.config import EMULATOR_WEBHOOK_SECRET
from tests.e2e.alerts.drill import QUIET, Drill, act, nothing
from tests.e2e.stack import KILL
from tests.e2e.timelapse import LAPSE
from tests.integration.store.scenes import rows


@act("TallyhookOldSecret")
async def old_secret(drill: Drill) -> None:
    """An hour in which the old one is used, as it comes again for a day."""
    await drill.restart("web", CLORO_WEBHOOK_SECRET=f"whsec_{'1' * 32},{EMULATOR_WEBHOOK_SECRET}")

    async def fault() -> None:
        for _ in range(4):
            await drill.until_settled(await drill.submit(5))

    async def cure() -> None:
        """It signs with the new one."""
        await drill.restart("web", CLORO_WEBHOOK_SECRET=EMULATOR_WEBHOOK_SECRET)

    await drill.meet(fault, cure, minutes=25 * 60, clears_s=4, clears_minutes=64)


@act("TallyhookNothingSent")
async def provider_fails(drill: Drill) -> None:
    async def fault() -> None:
        drill.stack.change_faults({"error_500": 1.0})
        await drill.submit(20)
        await drill.until_shown("tallyhook_pending_oldest_seconds", 600)

    async def cure() -> None:
        drill.stack.change_faults({"error_500": 0.0})
        await drill.until_settled(drill.stack.run_id)

    await drill.meet(fault, cure, lasts_minutes=6, clears_s=4)


@act("TallyhookRateRefused")
async def rate_refused(drill: Drill) -> None:
    """Everybody rests for a second after each refusal, which is no minute: so at the pace that it has."""

    async def fault() -> None:
        drill.stack.change_faults({"storm_429": 0.5})
        for _ in range(5):
            await drill.submit(30)
            await asyncio.sleep(2)

    async def cure() -> None:
        drill.stack.change_faults({"storm_429": 0.0})
        await drill.until_settled(drill.stack.run_id)

    await drill.meet(fault, cure, minutes=25, pace=LAPSE, clears_s=4, clears_minutes=12)


@act("TallyhookNoDeliveries", "TallyhookPollsOverdue", "TallyhookRetentionNear")
async def no_deliveries(drill: Drill) -> None:
    """Nothing is delivered, and whoever should poll stands still."""
    await drill.restart("worker", TALLYHOOK_POLL_AFTER_S="1", TALLYHOOK_RETENTION_S="26")
    await drill.stack.until_workers_started(1)

    async def hold_the_sweep() -> None:
        while True:
            now = await drill.stack.store.health.database_ms()
            await drill.stack.store.runs.acquire_lease("sweep", "stuck", until_ms=now + 3_000, now_ms=now)
            await asyncio.sleep(0.05)

    async def fault() -> None:
        drill.stack.change_faults({"drop": 1.0})
        holding = asyncio.create_task(hold_the_sweep())
        await asyncio.sleep(1)
        await drill.submit(10)
        await drill.until_shown("tallyhook_last_delivery_seconds", 900)
        await drill.until_shown("tallyhook_unreported_retention_ratio", 0.75)
        holding.cancel()
        await drill.stack.store.runs.release_lease("sweep", "stuck")

    async def cure() -> None:
        drill.stack.change_faults({"drop": 0.0})
        await drill.until_settled(drill.stack.run_id)

    await drill.meet(fault, cure, lasts_minutes=16, clears_s=4)
    await drill.restart("worker", TALLYHOOK_POLL_AFTER_S="8", TALLYHOOK_RETENTION_S="86400")


@act("TallyhookDeliveriesLost")
async def deliveries_lost(drill: Drill) -> None:
    async def fault() -> None:
        await _lose_deliveries(drill)
        await asyncio.sleep(3)

    await drill.meet(fault, nothing, clears_s=4, clears_minutes=64)


async def _lose_deliveries(drill: Drill) -> None:
    """They are acknowledged, and gone before anybody settled them."""
    store, stack = drill.stack.store, drill.stack
    # Only this edition's polls say what became of the webhook.
    await drill.restart_emulator("--edition", "2026", "--time-scale", "10", "--internal-retry", "0")

    async def sent() -> bool:
        return (await store.queries.progress(stack.run_id)).states.get("submitted") == 5

    async def stored() -> bool:
        return await store.queries.waiting_count() >= 5

    await drill.submit(5)
    await stack.until(sent, "all sent")
    stack.end("worker", KILL)
    await stack.until(stored, "their deliveries")
    await asyncio.sleep(1)
    await drill.sql("DELETE FROM deliveries WHERE state = 'new'")
    stack.start("worker")
    await drill.until_settled(stack.run_id)

    async def found() -> bool:
        return bool(await rows(store, "SELECT 1 FROM findings WHERE verdict = 'lost_after_ack'"))

    await stack.until(found, "the loss to be found")
    await drill.restart_emulator(*QUIET)
