"""Credits that end, and credits that nobody can explain."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

import aiohttp

from tests.e2e.alerts.drill import AT_LAST, QUIET, Drill, act, late_report, post_signed
from tests.e2e.timelapse import TICK_S
from tests.integration.store.scenes import rows


@act("TallyhookCreditsEnd", "TallyhookCreditsEndBeforeRuns")
async def credits_end(drill: Drill) -> None:
    await drill.restart_emulator(*QUIET, "--credits", "400")
    await drill.restart("worker")  # it asks for the balance, and so waits in time instead of being refused

    async def is_seen() -> bool:
        return drill.is_shown("tallyhook_credits_end_seconds")

    async def fault() -> None:
        await drill.submit(300)
        await drill.stack.until(is_seen, "a look ahead that sees the end")
        await asyncio.sleep((AT_LAST + 2) * TICK_S)

    async def cure() -> None:
        await topped_up(drill, 5_000)
        await drill.until_settled(drill.stack.run_id)

    await drill.meet(fault, cure, lasts_minutes=12, clears_s=8)


@act("TallyhookDrift")
async def drift(drill: Drill) -> None:
    """A report says more than the provider took, and a person books the rest as given back."""
    stack, booked = drill.stack, list[dict[str, Any]]()

    async def sent() -> bool:
        return (await stack.store.queries.progress(stack.run_id)).states.get("submitted") == 1

    async def is_seen() -> bool:
        return drill.shown("tallyhook_drift_credits") != 0

    async def is_explained() -> bool:
        return drill.shown("tallyhook_drift_credits") == 0

    async def fault() -> None:
        stack.change_faults({"drop": 1.0})
        await drill.submit(1)
        await stack.until(sent, "a task at the provider")
        (row,) = await rows(stack.store, "SELECT * FROM tasks WHERE run_id = :run", run=UUID(stack.run_id))
        assert await post_signed(drill, late_report(row, charged=500)) == 200
        await drill.until_settled(stack.run_id)
        stack.change_faults({"drop": 0.0})
        booked.append(row)
        # A balance may be a minute old, so three of them tell, and none is asked for while nothing moves.
        for _ in range(15):
            await drill.until_settled(await drill.submit(1))
            if await is_seen():
                break
            await asyncio.sleep(15)
        await stack.until(is_seen, "the drift")
        await asyncio.sleep(7)

    async def cure() -> None:
        # Not what is shown: that is the least that nobody can explain, and grows with each balance.
        (row,), tasks = booked, stack.books()["tasks"]
        (taken,) = [t["creditsCharged"] for t in tasks if t["idempotencyKey"] == row["idempotency_key"]]
        gained = f"--credits={500 - Decimal(taken):g}"
        drill.command("adjust", str(UUID(row["run_id"])), gained, "--reason", "never taken, ticket 123")
        await drill.until_settled(await drill.submit(1))
        await stack.until(is_explained, "the drift to be explained", timeout_s=240)

    await drill.meet(fault, cure, clears_s=4)


async def topped_up(drill: Drill, credits: int) -> None:
    url = drill.stack.env["CLORO_BASE_URL"]
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/_emulator/organizations/default", json={"topUp": credits}) as response,
    ):
        assert response.status == 200, await response.text()
