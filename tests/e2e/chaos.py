"""Kills a process of ours or a server every so often, and starts it again, until the run is finished."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping

from tests.e2e.stack import KILL, Stack


async def kill_until_finished(
    stack: Stack, servers: Mapping[str, Callable[[], None]], *, every_s: float, rng: random.Random,
    for_s: float,
) -> dict[str, int]:  # fmt: skip
    """kill -9 one of web, workers and `servers` every `every_s`, until the run is finished or for `for_s`;
    how often each was. A server's function kills it and brings it back.

    A task whose answer died with the worker is known by its delivery alone (S4), of which the provider makes
    five attempts within 30 minutes (C-I.5): while the killing goes on for longer, all five may find no web.
    """
    kills = dict.fromkeys((*(n for n in stack.pids() if n != "emulator"), *servers), 0)
    until = time.monotonic() + for_s
    while (await stack.store.progress(stack.run_id)).open and time.monotonic() < until:
        await asyncio.sleep(every_s)
        victim = rng.choice(sorted(kills))
        kills[victim] += 1
        if victim in servers:
            await asyncio.to_thread(servers[victim])
        else:
            stack.end(victim, KILL)
            stack.start(victim)
    return kills
