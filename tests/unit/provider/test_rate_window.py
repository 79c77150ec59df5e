"""Nothing is refused, whatever stands still, and hardly any of the provider's seconds is left unused.

Against a provider in simulated time, which counts in windows of its own clock and says what is left."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from app.provider.ratelimit.pacing import Pacer
from app.provider.ratelimit.shared import KNOWN_LATE_S, SHARED_HEADROOM
from app.provider.ratelimit.window import LOOK_S, RateWindow
from tests.unit.provider.test_pacing import running
from tests.unit.provider.virtual_loop import VirtualTime

LIMIT = 500
SENDERS = 256
SECONDS = 5
SHARED_SECONDS = 20

Delay = Callable[[random.Random], float]


@dataclass
class Provider:
    """Fixed windows of a second (C-D.4, C-L12), which begin at `phase_s` of the simulated clock; it may stand
    still, and then counts what came meanwhile when it goes on."""

    time: VirtualTime
    rng: random.Random
    limit: int = LIMIT
    phase_s: float = 0.37
    out_s: Delay = lambda rng: 0.002
    back_s: Delay = lambda rng: 0.002
    still_every_s: float = 0.0
    still_for_s: float = 0.0
    used: Counter[int] = field(default_factory=Counter)
    refused: int = 0

    def window(self) -> int:
        return int(self.time.now_s - self.phase_s)

    def count(self) -> int:
        """Requests left after this one."""
        self.used[self.window()] += 1
        left = self.limit - self.used[self.window()]
        self.refused += left < 0
        return max(left, 0)

    async def call(self) -> int:
        await self.time.sleep(self.out_s(self.rng))
        if self.still_every_s:
            into_s = self.time.now_s % self.still_every_s
            if into_s < self.still_for_s:
                await self.time.sleep(self.still_for_s - into_s)
        left = self.count()
        await self.time.sleep(self.back_s(self.rng))
        return left


class FirstComesFirst(Provider):
    """Windows that begin with their first request."""

    begun_s = 0.0
    number = 0

    def window(self) -> int:
        if self.time.now_s >= self.begun_s + 1.0:
            self.begun_s, self.number = self.time.now_s, self.number + 1
        return self.number


async def send(
    provider: Provider, pacers: list[Pacer], seconds: float = SECONDS, think_s: float = 0.0
) -> float:
    """Send as fast as the pacers let; the share of the limit that was sent after the first two seconds."""
    time = provider.time

    async def sender(pacer: Pacer) -> None:
        while True:
            await pacer.acquire()
            went_s = time.monotonic()
            left = await provider.call()
            pacer.answered(time.monotonic() - went_s, LIMIT, left)
            if think_s:
                await time.sleep(provider.rng.uniform(0, 2 * think_s))

    each = SENDERS // len(pacers)
    async with running(*(sender(pacer) for pacer in pacers for _ in range(each))):
        await time.run(time.now_s + 2)
        before = sum(provider.used.values())
        await time.run(time.now_s + seconds)
    return (sum(provider.used.values()) - before) / seconds / LIMIT


def pacer_of(time: VirtualTime, rate: float = LIMIT) -> Pacer:
    return Pacer(rate, monotonic=time.monotonic, sleep=time.sleep)


def jitter(low_s: float, high_s: float) -> Delay:
    return lambda rng: rng.uniform(low_s, high_s)


def now_and_then(late_s: float) -> Delay:
    """Each thousandth request is on its way for so long."""
    return lambda rng: late_s if rng.random() < 0.001 else 0.002


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("least", "shape"),
    [
        (0.99, {}),
        (0.985, {"out_s": jitter(0.001, 0.02), "back_s": jitter(0.001, 0.02)}),
        (0.985, {"out_s": jitter(0.05, 0.06), "back_s": jitter(0.05, 0.06)}),
        (0.97, {"out_s": jitter(0.1, 0.15), "back_s": jitter(0.1, 0.15)}),
        (0.98, {"out_s": now_and_then(0.3)}),
        (0.97, {"still_every_s": 1.31, "still_for_s": 0.08}),
        (0.94, {"still_every_s": 0.97, "still_for_s": 0.15}),
    ],
    ids=["quiet", "jitter", "100 ms away", "far away", "stragglers", "stalls", "long stalls"],
)
async def test_nothing_is_refused_and_hardly_anything_left(
    seed: int, least: float, shape: dict[str, object]
) -> None:
    rng = random.Random(seed)
    time = VirtualTime()
    provider = Provider(time, rng, phase_s=rng.random(), **shape)  # type: ignore[arg-type]
    share = await send(provider, [pacer_of(time)])
    assert provider.refused == 0, f"seed {seed}"
    assert share >= least, f"seed {seed}: {share:.4f}"


@pytest.mark.parametrize("seed", range(2))
async def test_a_sender_that_is_woken_late_is_refused_nothing(seed: int) -> None:
    rng = random.Random(seed)
    time = VirtualTime(lambda: rng.uniform(0.01, 0.15) if rng.random() < 0.0005 else 0.0)
    provider = Provider(time, rng, phase_s=rng.random())
    share = await send(provider, [pacer_of(time)])
    assert provider.refused == 0, f"seed {seed}"
    assert share >= 0.96, f"seed {seed}: {share:.4f}"


async def test_windows_that_begin_with_their_first_request() -> None:
    time = VirtualTime()
    provider = FirstComesFirst(time, random.Random(1), out_s=jitter(0.002, 0.01))
    share = await send(provider, [pacer_of(time)])
    assert provider.refused <= 5, "the contract has none such; what is refused shows where they begin"
    assert share >= 0.95


async def test_several_processes_hold_back_for_each_other() -> None:
    """Each sends as much as all together may."""
    time = VirtualTime()
    provider = Provider(time, random.Random(2))
    pacers = [pacer_of(time) for _ in range(2)]
    for pacer in pacers:
        pacer.window.processes = len(pacers)
    share = await send(provider, pacers)
    assert provider.refused <= 2, "in the first second nobody knows of the other"
    assert share >= 0.9


async def test_after_a_quiet_time_the_next_second_is_found_again() -> None:
    time = VirtualTime()
    provider = Provider(time, random.Random(3))
    pacer = pacer_of(time)
    await send(provider, [pacer], 20, think_s=100.0)  # about two requests a second
    assert await send(provider, [pacer]) >= 0.98
    assert provider.refused == 0


def room_at(at_s: list[float]) -> RateWindow:
    return RateWindow(lambda: at_s[0])


def test_without_headers_there_is_room_for_everything() -> None:
    room = room_at([0.0])
    for _ in range(LIMIT):
        room.sent()
    room.answered(0.01, None, None)
    room.answered(0.01, 0, 0)
    assert not room.is_known and room.full_for_s() == 0


def test_when_hardly_anything_is_left_nothing_goes_until_the_second_is_over() -> None:
    """Though we have sent little: others use the same key."""
    at = [10.0]
    room = room_at(at)
    room.sent()
    at[0] = 10.004
    room.answered(0.004, LIMIT, 4)
    assert room.full_for_s() == 0, "one more than is left alone"
    room.sent()
    assert room.full_for_s() == pytest.approx(0.996), "until a second after the first one of it went"
    at[0] = 10.9
    room.answered(0.1, LIMIT, 480)
    assert room.full_for_s() == 0, "what leaps up is a new second"


def test_turns_of_others_since_the_last_answer_are_on_their_way() -> None:
    at = [10.0]
    room = room_at(at)
    room.processes = 4
    room.sent(number=100)
    at[0] = 10.01
    room.answered(0.01, LIMIT, 50)
    assert room.full_for_s(number=143) == 0
    assert room.full_for_s(number=145) > 0, "44 of the others, and 6 are left alone"
    room.sent(number=143)
    assert room.full_for_s(number=110) == 0
    room.sent(number=145)
    assert room.full_for_s(number=110) > 0, "a turn that comes late does not come before those"
    at[0] = 10.02
    room.answered(0.01, LIMIT, 7 + 5)
    assert room.full_for_s(number=146) == 0, "some of them were not used"
    at[0] = 11.5
    assert room.full_for_s(number=5_000) == 0, "what the others sent in a second that is over counts no more"


def test_an_answer_that_was_overtaken_leaves_the_numbers_known() -> None:
    at = [10.0]
    room = room_at(at)
    room.processes = 4
    for number in (100, 101):
        at[0] += 0.002
        room.sent(number)
    at[0] = 10.02
    room.answered(0.016, LIMIT, 50)  # the second one
    room.answered(0.018, LIMIT, 49)
    assert room.full_for_s(number=145) > 0, "49 left, 43 of the others since"


def test_what_stands_still_comes_on_top_of_what_others_sent_since() -> None:
    at = [10.0]
    room = room_at(at)
    room.processes = 2
    for number in range(100, 121):
        at[0] += 0.002
        room.sent(number)
    room.answered(0.0, LIMIT, 34)  # the last one only
    assert room.full_for_s(number=130) > 0, "20 stand still, 9 are of others, 5 are left"
    assert room.full_for_s(number=125) == 0


def test_a_second_that_others_used_while_this_process_was_quiet() -> None:
    at = [10.0]
    room = room_at(at)
    room.processes = 2
    room.sent(1)
    room.answered(0.0, LIMIT, 400)
    at[0] = 12.3
    for number, left in ((400, 30), (430, 4)):
        room.sent(number)
        at[0] += 0.004
        room.answered(0.004, LIMIT, left)
    assert room.full_for_s(number=431) > 0


def test_what_is_left_is_known_for_a_while_only() -> None:
    at = [10.0]
    pacer = Pacer(LIMIT, monotonic=lambda: at[0])
    pacer.answered(0.0, LIMIT, 400)
    assert pacer.windows.cap == 497
    at[0] = 30.0
    pacer.answered(0.0)
    assert pacer.windows.cap == 489


def test_what_is_given_up_is_no_longer_on_its_way() -> None:
    at = [10.0]
    room = room_at(at)
    for _ in range(LIMIT - 4):
        room.sent()
    room.answered(0.0, LIMIT, 499)
    assert room.full_for_s() == 0
    room.sent()
    room.sent()
    assert room.full_for_s() > 0
    at[0] = 15.0
    assert 0 < room.full_for_s() < 0.1, "any of them may be counted yet"
    room.answered(5.0, None, None)
    room.answered(5.0, None, None)
    assert room.full_for_s() == 0


def test_an_answer_that_was_overtaken_begins_no_second() -> None:
    at = [10.0]
    room = room_at(at)
    for _ in range(2):
        room.sent()
    at[0] = 10.3
    room.answered(0.1, LIMIT, 3)
    room.answered(0.3, LIMIT, 499)
    room.answered(0.2, LIMIT, 300)
    assert room.full_for_s() > 0


async def test_the_count_of_another_endpoint_begins_no_second() -> None:
    """C-B7: in one edition each endpoint has a count of its own."""
    time = VirtualTime()
    provider = Provider(time, random.Random(4))
    pacer = pacer_of(time)

    async def poller() -> None:
        while True:
            await pacer.acquire()
            await time.sleep(0.004)
            pacer.answered(0.004, LIMIT, LIMIT - 1)
            await time.sleep(0.11)

    async with running(poller()):
        share = await send(provider, [pacer])
    assert provider.refused == 0
    assert share >= 0.98


async def test_those_who_wait_go_when_there_is_room_again() -> None:
    time = VirtualTime()
    pacer = pacer_of(time)
    left: list[float] = []

    async def one() -> None:
        await pacer.acquire()
        left.append(time.monotonic() - 1_000)

    await pacer.acquire()
    pacer.answered(0.0, LIMIT, 3)
    async with running(one()):
        await time.run(1_000.99)
        assert left == []
        await time.run(1_001.01)
    assert left == [pytest.approx(1.0, abs=0.002)]


def test_an_answer_that_the_new_second_overtook_takes_nothing_from_it() -> None:
    at = [10.0]
    room = room_at(at)
    room.processes = 3
    room.sent(7)
    at[0] = 10.4
    room.answered(0.0, LIMIT, 60)
    for number in (400, 401):
        room.sent(number)
        at[0] += 0.03
    room.answered(0.004, LIMIT, 499)
    room.answered(0.06, LIMIT, 1)  # went before, and was counted in the second before
    assert room.full_for_s(number=402) == 0


async def share_of_three(provider: Provider, limit: int) -> float:
    """What three processes send of the limit, whose numbered turns come in blocks of any order."""
    time, rng = provider.time, provider.rng
    windows = [RateWindow(time.monotonic) for _ in range(3)]
    first_s = time.now_s

    async def send_one(window: RateWindow, number: int) -> None:
        turn_s = first_s + number / (limit * SHARED_HEADROOM)
        await time.sleep(turn_s - time.monotonic())
        while window.full_for_s(number) > 0:
            await time.sleep(LOOK_S)
            if time.monotonic() > turn_s + KNOWN_LATE_S:
                return  # given back
        window.sent(number)
        went_s = time.monotonic()
        left = await provider.call()
        window.answered(time.monotonic() - went_s, limit, left)

    turns: list[RateWindow] = []
    for window in windows:
        window.processes = len(windows)
    while len(turns) < limit * SHARED_SECONDS:
        turns += [rng.choice(windows)] * rng.randint(1, max(limit // 10, 1))
    async with running(*(send_one(window, number) for number, window in enumerate(turns))):
        await time.run(time.now_s + 3)
        before = sum(provider.used.values())
        await time.run(first_s + SHARED_SECONDS)
    return (sum(provider.used.values()) - before) / (SHARED_SECONDS - 3) / limit


@pytest.mark.parametrize("late_s", [0.002, 0.03])
@pytest.mark.parametrize(("limit", "least"), [(10, 0.95), (60, 0.975)])
async def test_who_has_no_turn_for_a_while_knows_when_the_second_ended(
    limit: int, late_s: float, least: float
) -> None:
    """Three processes, each of which hears nothing of the provider for a third of a second or more: it found
    seconds by their first answers, as late as those, and held back when the next had long begun."""
    time, rng = VirtualTime(), random.Random(5)
    provider = Provider(time, rng, limit=limit, out_s=jitter(0.001, late_s), back_s=jitter(0.001, late_s))
    share = await share_of_three(provider, limit)
    assert provider.refused == 0
    assert share >= least, f"{share:.4f}"
