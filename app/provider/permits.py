"""One rate limit for all processes of an account: turns are leased from Redis in blocks.

The schedule is one number in Redis, the moment after the last turn that was given away. A process that wants
n turns moves it n intervals on, in one script, and has those n turns for itself, evenly spaced and nobody
else's; so a turn costs a fraction of a round trip, and however many processes there are, what they send
together is spaced like one sender's. Redis's own clock decides, so the processes' clocks need not agree.

Without Redis each process keeps to its share, by the number of processes that were last seen: slower, and
never above the limit.
"""

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.provider.pacing import Pacer

BLOCK_MAX = 16
"""Turns leased at once: 32 ms at 490/s, about 30 round trips a second. What a killed process held is lost."""
LATE_S = 0.02
"""A turn not taken within this is dropped: used later, it could be one too many for its second."""
AWAY_S = 5.0
"""After Redis failed, how long this process keeps to its share before it asks again."""
SEEN_S = 10.0
"""A process counts as sending for this long after its last lease."""
TIMEOUT_S = 0.5

_TROUBLE = (RedisError, OSError, TimeoutError)

# KEYS: schedule, processes. ARGV: interval (µs), turns, furthest acceptable start (µs from now), process id,
# for how long a process counts (µs), pause (µs from now; 0: none). Returns start of the first turn in µs from
# now, whether the turns were given, processes seen.
_LEASE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local start = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now, now + ARGV[6])
redis.call('ZADD', KEYS[2], now, ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[5])
redis.call('PEXPIRE', KEYS[2], 60000)
local given = 0
local following = start
if start - now <= tonumber(ARGV[3]) then
  given = 1
  following = start + ARGV[1] * ARGV[2]
end
local kept = math.ceil((following - now) / 1000) + 60000
redis.call('SET', KEYS[1], string.format('%.0f', following), 'PX', kept)
return {start - now, given, redis.call('ZCARD', KEYS[2])}
"""
_FURTHEST_US = 2**52
"""Stands for infinity: the script counts in doubles."""


class SharedPacer:
    """As Pacer, for all processes that use the same Redis and account name together."""

    def __init__(
        self,
        redis: Redis,
        account: str,
        rate_per_s: float,
        *,
        processes_expected: int = 4,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._local = Pacer(rate_per_s, monotonic=monotonic, sleep=sleep)
        self._share = Pacer(rate_per_s / processes_expected, monotonic=monotonic, sleep=sleep)
        self._redis = redis
        self._lease = redis.register_script(_LEASE)
        self._keys = [f"tallyhook:pace:{account}:next", f"tallyhook:pace:{account}:processes"]
        self._process = uuid.uuid4().hex
        self._monotonic = monotonic
        self._sleep = sleep
        self._turns: deque[float] = deque()
        self._leasing = asyncio.Lock()
        self._waiting = 0
        self._away_until_s = 0.0
        self._paused_until_s = 0.0
        self._processes = processes_expected

    @property
    def rate_per_s(self) -> float:
        """Turns a second of all processes together."""
        return self._local.rate_per_s

    async def acquire(self, within_s: float = math.inf) -> float:
        """Wait for this request's turn; 0 once it has come. When it is further away than `within_s`, nothing
        is waited for: the seconds until then."""
        self._waiting += 1
        try:
            while True:
                turn = await self._turn(within_s)
                if turn is None:
                    return await self._share.acquire(within_s)
                at, is_ours = turn
                wait_s = at - self._monotonic()
                if not is_ours:
                    return max(wait_s, within_s)
                if wait_s > 0:
                    await self._sleep(wait_s)
                if self._monotonic() - at <= LATE_S:
                    await self._local.count_in()
                    return 0.0
        finally:
            self._waiting -= 1

    def observe(self, limit: int | None) -> None:
        """Take over the limit that a response names, when it is below the configured one."""
        self._local.observe(limit)
        if limit is not None and limit > 0:
            self._share_out(min(self._rate_per_s, float(limit)))

    def pause(self, wait_s: float) -> None:
        """Nobody sends for a while: the provider said so. The others learn it with our next lease."""
        self._turns.clear()
        self._share.pause(wait_s)
        self._paused_until_s = max(self._paused_until_s, self._monotonic() + wait_s)

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.aclose()

    async def _turn(self, within_s: float) -> tuple[float, bool] | None:
        """The monotonic moment of a turn, and whether it is ours: one further away than `within_s` is not.
        None without Redis."""
        async with self._leasing:
            now = self._monotonic()
            while self._turns:
                at = self._turns.popleft()
                if now - at <= LATE_S:
                    return at, True
            if now < self._away_until_s:
                return None
            count = min(max(self._waiting, 1), BLOCK_MAX)
            within_us = _FURTHEST_US if math.isinf(within_s) else round(within_s * 1e6)
            answer = await self._ask(count, within_us)
            if answer is not None and answer[1]:
                self._turns.extend(answer[0] + n / self.rate_per_s for n in range(1, count))
            return answer

    async def _ask(self, count: int, within_us: int) -> tuple[float, bool] | None:
        """(monotonic start of the first turn, whether they are ours), or None when Redis did not answer."""
        pause_us = max(round((self._paused_until_s - self._monotonic()) * 1e6), 0)
        arguments: list[int | str] = [
            round(1e6 / self.rate_per_s), count, within_us, self._process, round(SEEN_S * 1e6), pause_us
        ]  # fmt: skip
        try:
            async with asyncio.timeout(TIMEOUT_S):
                delay_us, given, processes = await self._lease(keys=self._keys, args=arguments)
        except _TROUBLE:
            self._away_until_s = self._monotonic() + AWAY_S
            return None
        if processes != self._processes:
            self._processes = processes
            self._share_out(self._local.rate_per_s)
        # Measured after the answer: the turn begins at most one way of the network too late, never too early.
        return self._monotonic() + delay_us / 1e6, bool(given)

    def _share_out(self, rate_per_s: float) -> None:
        self._share.observe(max(int(rate_per_s / max(self._processes, 1)), 1))
