"""Disturbs a run until it is finished: processes and servers are killed and started again, and trouble that
kills nobody begins and ends."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager

from tests.e2e.stack import KILL, Stack

Trouble = Callable[[], AbstractAsyncContextManager[None]]


async def disturb_until_finished(
    stack: Stack,
    servers: Mapping[str, Callable[[], None]],
    troubles: Mapping[str, Trouble],
    *,
    kill_processes: bool = True,
    every_s: float,
    trouble_s: float = 0.0,
    rng: random.Random,
    for_s: float,
) -> dict[str, int]:
    """Every `every_s` either kill -9 web, a worker or one of `servers`, or let one of `troubles` last for
    `trouble_s`, until the run is finished, or for `for_s` and until each had its turn; how often each was.
    Each has its turn before any has a second one. A server's function kills it and brings it back.

    A task whose answer died with the worker is known by its delivery alone (S4), of which the provider makes
    five attempts within 30 minutes (C-I.5): while this goes on for longer, all five may find no web.
    """
    processes = [n for n in stack.pids() if n != "emulator"] if kill_processes else []
    met = dict.fromkeys((*processes, *servers, *troubles), 0)
    turns = _turns(sorted(met), rng)
    until = time.monotonic() + for_s
    while (time.monotonic() < until or not all(met.values())) and await is_open(stack):
        await asyncio.sleep(every_s)
        name = next(turns)
        met[name] += 1
        if name in troubles:
            async with troubles[name]():
                await asyncio.sleep(trouble_s)
        elif name in servers:
            await asyncio.to_thread(servers[name])
        else:
            stack.end(name, KILL)
            stack.start(name)
    return met


async def is_open(stack: Stack) -> bool:
    return bool((await stack.store.queries.progress(stack.run_id)).open)


def _turns(names: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(names, len(names))
