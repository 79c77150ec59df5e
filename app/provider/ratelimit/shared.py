"""One rate limit for all processes of an account: permits are leased from Redis in blocks.

Redis keeps the times of the last permits that were given away, newest first, and one script adds to them. A
permit comes no sooner than one interval after the last one (a shorter one after a stall), than a second
after the one as many permits back as a second may have, and the same for an hour. So what all processes send
together is spaced like one sender's, what a stall cost is caught up without ever being one too many for its
second, and a permit costs a fraction of a round trip. Redis's own clock decides, so the processes' clocks
need not agree.

Without Redis each process keeps to its share, by the number of processes that were last seen: slower, and
never above the limit.
"""

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.provider.ratelimit.pacing import RECENT_S, Pacer, Windows
from app.provider.ratelimit.window import CLOCK_STEP_S, RateWindow

BLOCK_S = 0.032
"""Permits leased at once are at most those of so long: 16 at 500/s, about 30 round trips a second. A killed
process loses its own."""
BLOCK_MIN = 16
"""At a lower rate so many may be leased; how far ahead is bounded as well."""
SHARED_HEADROOM = 0.987
"""Share of the limit that several processes are given together. Requests on their way for up to 13 ms more or
less than others (1 / 0.987) are never one too many for a second, whatever is known of it; by what more they
are late, the provider's own count bounds (`RateWindow`)."""
LEAD_S = 0.1
"""How far ahead permits are leased. Those that come back too late leave gaps, and gaps before permits that
are given away already are not made up for."""
LATE_S = 0.01
"""A permit not taken within this goes back when others share the limit: used later, it could be one too many
for its second. A process alone counts for itself."""
KNOWN_LATE_S = 0.04
"""The same where the provider says how much is left."""
AWAY_S = 5.0
"""After Redis failed, how long this process keeps to its share before it asks again."""
SEEN_S = 10.0
"""A process counts as sending for this long after its last lease."""
TIMEOUT_S = 0.5
"""Redis is away when it takes longer than this to answer."""

_TROUBLE = (RedisError, OSError, TimeoutError)

# KEYS: turns, processes, pause, number. ARGV: permits wanted, interval (µs), permits in a second or a bit
# more, permits an hour (0: no limit), furthest acceptable permit (µs from now), process id, for how long a
# process counts (µs), pause (µs from now; 0: none), interval while catching up (µs), what is recent (µs ago),
# that second or a bit more (µs), then permits given back. Returns the number of the last permit given (0:
# none), processes seen, Redis's time, and the times of the permits, or of the one that is too far away. Times
# are µs of Redis's clock.
_LEASE_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local turns, processes, pause = KEYS[1], KEYS[2], KEYS[3]
for i = 12, #ARGV do redis.call('LREM', turns, 1, ARGV[i]) end
redis.call('ZADD', processes, now, ARGV[6])
redis.call('ZREMRANGEBYSCORE', processes, '-inf', now - ARGV[7])
redis.call('PEXPIRE', processes, 60000)
local paused = tonumber(redis.call('GET', pause) or '0')
if tonumber(ARGV[8]) > 0 then
  paused = math.max(paused, now + ARGV[8])
  redis.call('SET', pause, string.format('%.0f', paused), 'PX', math.ceil((paused - now) / 1000))
end
local given, answer = 0, {0, redis.call('ZCARD', processes), now}
-- What permits of this lease may have to keep a distance from, by one command: one for each permit took more
-- than half of Redis's time.
local function before(first, count)
  return redis.call('LRANGE', turns, math.max(first - count, 0), first - 1)
end
local second_ago = before(tonumber(ARGV[3]), tonumber(ARGV[1]))
local hour_ago = tonumber(ARGV[4]) > 0 and before(tonumber(ARGV[4]), tonumber(ARGV[1])) or {}
local newest = redis.call('LINDEX', turns, 0)
-- The time of the permit so many back, those of this lease included.
local function back(count, stored)
  if count <= given then return answer[4 + given - count] end
  return stored[math.min(count, ARGV[1]) - given]
end
local function next_turn()
  local at = math.max(now, paused)
  local last = given > 0 and answer[3 + given] or newest
  local second = back(tonumber(ARGV[3]), second_ago)
  local interval = second and at - second < tonumber(ARGV[10]) and ARGV[9] or ARGV[2]
  if last then at = math.max(at, last + interval) end
  if second then at = math.max(at, second + ARGV[11]) end
  if tonumber(ARGV[4]) > 0 then
    local hour = back(tonumber(ARGV[4]), hour_ago)
    if hour then at = math.max(at, hour + 3600000000) end
  end
  return at
end
answer[4] = next_turn()
if answer[4] - now > tonumber(ARGV[5]) then return answer end
local texts = {}
repeat
  given = given + 1
  texts[given] = string.format('%.0f', answer[3 + given])
  answer[3 + given] = tonumber(texts[given])
  local another = next_turn()
  if given == tonumber(ARGV[1]) or another - now > tonumber(ARGV[5]) then break end
  answer[4 + given] = another
until false
redis.call('LPUSH', turns, unpack(texts))
answer[1] = redis.call('INCRBY', KEYS[4], given)
-- Some may be given back yet, and then those before them are what to keep a distance from: four times
-- UNUSED_MAX more than a window needs.
redis.call('LTRIM', turns, 0, math.max(ARGV[3], ARGV[4]) + 255)
local kept = tonumber(ARGV[4]) > 0 and 3600000 or 60000
redis.call('PEXPIRE', turns, math.ceil((answer[3 + given] - now) / 1000) + kept)
redis.call('PEXPIRE', KEYS[4], kept)
return answer
"""
UNUSED_MAX = 64
"""Permits given back with one lease; more are lost."""


class _Permit(msgspec.Struct, frozen=True, gc=False):
    """One permit of ours: its time by our clock, and by Redis's, which names it; and its number."""

    at_s: float
    redis_us: int
    number: int


class SharedPacer:
    """As Pacer, for all processes that use the same Redis and account name together."""

    def __init__(
        self,
        redis: Redis,
        account: str,
        rate_per_s: float,
        *,
        per_hour: int | None = None,
        processes_expected: int = 4,
        timeout_s: float = TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        window = self._window = RateWindow(monotonic)
        window.processes = processes_expected
        self._local = Pacer(rate_per_s, per_hour=per_hour, window=window, monotonic=monotonic, sleep=sleep)
        self._share = Pacer(
            rate_per_s / processes_expected,
            per_hour=None if per_hour is None else max(per_hour // processes_expected, 1),
            window=window,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._redis = redis
        self._script = redis.register_script(_LEASE_SCRIPT)
        self._keys = [
            f"tallyhook:pace:{account}:{name}" for name in ("turns", "processes", "pause", "number")
        ]
        self._process = uuid.uuid4().hex
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._permits: deque[_Permit] = deque()
        self._unused: deque[int] = deque(maxlen=UNUSED_MAX)
        self._leasing = asyncio.Lock()
        self._waiting = 0
        self._away_until_s = 0.0
        self._paused_until_s = 0.0

    @property
    def windows(self) -> Windows:
        """The limits of all processes together."""
        return self._local.windows

    @property
    def share_per_s(self) -> float:
        """What this process may send of the limit, if all that were seen send."""
        return 1 / self.windows.spacing_s / self._window.processes

    async def acquire(self, within_s: float = math.inf) -> float:
        """Wait for this request's permit; 0 once it has come. When it would not come within `within_s`, no
        permit is used up: the seconds until then."""
        self._waiting += 1
        deadline_s = self._monotonic() + within_s
        try:
            while True:
                permit = await self._next_permit(deadline_s)
                if permit is None:
                    return await self._share.acquire(max(deadline_s - self._monotonic(), 0.0))
                if isinstance(permit, float):
                    return max(permit, CLOCK_STEP_S)
                number = await self._sleep_until(permit)
                if self._is_good(permit):
                    self._local.count(number)
                    return 0.0
                self._unused.append(permit.redis_us)
        finally:
            self._waiting -= 1

    def answered(self, took_s: float, limit: int | None = None, remaining: int | None = None) -> None:
        """Take over what a response says of the limit, as a Pacer does."""
        before = self.windows
        self._local.answered(took_s, limit, remaining)
        if self.windows != before:
            self._share_out()

    def pause(self, wait_s: float) -> None:
        """Nobody sends for a while: the provider said so. The others learn it with our next lease."""
        self._unused.extend(permit.redis_us for permit in self._permits)
        self._permits.clear()
        self._share.pause(wait_s)
        self._paused_until_s = max(self._paused_until_s, self._monotonic() + wait_s)

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.aclose()

    async def _sleep_until(self, permit: _Permit) -> int:
        """Sleep until its time and until the window has room for it; its number by then."""
        try:
            if (wait_s := permit.at_s - self._monotonic()) > 0:
                await self._sleep(wait_s)
            while (wait_s := self._local.full_for_s(number := self._number_now(permit))) > CLOCK_STEP_S:
                await self._sleep(wait_s)
        except asyncio.CancelledError:
            self._unused.append(permit.redis_us)
            raise
        return number

    def _number_now(self, permit: _Permit) -> int:
        """The number of the permit whose time it is when this one goes: others went before a late one."""
        late_s = max(self._monotonic() - permit.at_s, 0.0)
        return permit.number + int(late_s / self.windows.spacing_s)

    def _is_good(self, permit: _Permit) -> bool:
        now = self._monotonic()
        if permit.at_s < self._paused_until_s and now < self._paused_until_s:
            return False
        late_s = KNOWN_LATE_S if self._window.is_known else LATE_S
        return self._window.processes == 1 or now - permit.at_s <= late_s

    async def _next_permit(self, deadline_s: float) -> _Permit | float | None:
        """A permit of ours, or in how many seconds there would be one when that is after the deadline.
        None without Redis."""
        async with self._leasing:
            while self._permits:
                permit = self._permits.popleft()
                if self._is_good(permit):
                    return permit
                self._unused.append(permit.redis_us)
            if self._monotonic() < self._away_until_s:
                return None
            while isinstance(answer := await self._lease_block(self._block_size(), LEAD_S), float):
                if self._monotonic() + answer > deadline_s:
                    return answer
                # The others have nothing to do meanwhile either.
                await self._sleep(max(answer - LEAD_S / 2, CLOCK_STEP_S))
            if answer is not None:
                self._permits.extend(answer[1:])
                return answer[0]
            return None

    async def _lease_block(self, count: int, within_s: float) -> list[_Permit] | float | None:
        """At most `count` permits, or the seconds until the first one when that is too far away, or None when
        Redis did not answer."""
        windows, shared = self.windows, self._shared_windows()
        pause_us = max(round((self._paused_until_s - self._monotonic()) * 1e6), 0)
        unused, self._unused = self._unused, deque(maxlen=UNUSED_MAX)
        arguments: list[int | str] = [
            count,
            round(windows.spacing_s * 1e6),
            shared.cap,
            windows.per_hour or 0,
            round(within_s * 1e6),
            self._process,
            round(SEEN_S * 1e6),
            pause_us,
            round(windows.catch_up_s * 1e6),
            round(RECENT_S * 1e6),
            math.ceil(shared.cap_s * 1e6),
            *unused,
        ]
        try:
            async with asyncio.timeout(self._timeout_s):
                last, processes, now_us, *times_us = await self._script(keys=self._keys, args=arguments)
        except _TROUBLE:
            self._away_until_s = self._monotonic() + AWAY_S
            return None
        if processes != self._window.processes:
            self._window.processes = processes
            self._share_out()
        if not last:
            return float(times_us[0] - now_us) / 1e6
        # Measured after the answer: a permit begins at most one way of the network too late, never too early.
        now = self._monotonic()
        return [
            _Permit(now + (time_us - now_us) / 1e6, time_us, number)
            for number, time_us in enumerate(times_us, last - len(times_us) + 1)
        ]

    def _block_size(self) -> int:
        # No more than can be given back.
        most = min(max(round(self.windows.rate_per_s * BLOCK_S), BLOCK_MIN), UNUSED_MAX)
        return min(self._waiting, most)

    def _shared_windows(self) -> Windows:
        """What all processes together are given."""
        if self._window.processes == 1:
            return self.windows
        return replace(self.windows, headroom=SHARED_HEADROOM)

    def _share_out(self) -> None:
        self._local.lower()
        share = self.windows.rate_per_s / self._window.processes
        # Whole turns a second: those that each may round up are too many for all.
        self._share.lower(int(share) if share >= 1 else share)
