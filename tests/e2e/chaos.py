"""Kills a process of ours, or Valkey, every so often, and starts it again, until the run is finished."""

import asyncio
import random

from tests.e2e.stack import KILL, Stack
from tests.servers.valkey import ValkeyServer


async def kill_until_finished(
    stack: Stack, valkey: ValkeyServer, *, every_s: float, rng: random.Random, timeout_s: float
) -> dict[str, int]:
    """kill -9 one of web, worker and Valkey every `every_s`; how often each was."""
    kills = dict.fromkeys((*(n for n in stack.pids() if n != "emulator"), "valkey"), 0)
    async with asyncio.timeout(timeout_s):
        while (await stack.store.progress(stack.run_id)).open:
            await asyncio.sleep(every_s)
            victim = rng.choice(sorted(kills))
            kills[victim] += 1
            if victim == "valkey":
                valkey.kill()
                valkey.start()
            else:
                stack.end(victim, KILL)
                stack.start(victim)
    return kills
