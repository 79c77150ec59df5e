"""C-M: seeded misbehaviour, and that the books list exactly what was done."""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest
from emulator_harness import TASK_TYPES, Receiver, eventually
from test_emulator_deliveries import verify

from app.emulator.engine.faults import FaultRates, fate_of
from app.emulator.http.request_faults import PAGES


async def submit(provider: Any, receiver: Receiver, count: int, order: Any = None) -> int:
    """Create tasks, several at once; how many answers were lost."""
    lost = 0

    async def one(number: int) -> None:
        nonlocal lost
        task_type = TASK_TYPES[number % len(TASK_TYPES)]
        include = {"expandProducts": True} if task_type == "AIMODE" else {}
        task = provider.task(task_type, payload={"include": include}, webhook={"url": receiver.url})
        try:
            reply = await provider.post("/v1/async/task", task | {"idempotencyKey": f"k-{number}"})
            assert reply.status == 200, reply.raw
        except aiohttp.ClientError:
            lost += 1

    numbers = list(order or range(count))
    for start in range(0, count, 20):
        await asyncio.gather(*(one(number) for number in numbers[start : start + 20]))
    return lost


FAULTY: dict[str, Any] = {
    "fail": 0.05,
    "duplicate": 0.05,
    "drop": 0.05,
    "shuffle_s": 0.05,
    "wrong_charge": 0.08,
    "lose_response": 0.05,
}


async def test_counts_and_books_agree(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(scale=3000.0, requests_per_s=0, seed=11, faults=FaultRates(**FAULTY))
    lost = await submit(provider, receiver, 400)
    books = await provider.quiet()
    named = Counter(name for line in books["tasks"] for name in line["faults"])
    totals = books["totals"]
    assert len(books["tasks"]) == totals["tasks"] == 400
    assert totals["failed"] == named["fail"] == sum(line["status"] == "FAILED" for line in books["tasks"])
    assert totals["responses_lost"] == named["lose_response"] == lost
    assert totals["deliveries_dropped"] == named["drop"]
    assert totals["deliveries_acked"] == len(receiver.arrivals) == 400 - named["drop"] + named["duplicate"]
    arrived = Counter(arrival.body["task"]["id"] for arrival in receiver.arrivals)
    for line in books["tasks"]:
        expected = 0 if "drop" in line["faults"] else 2 if "duplicate" in line["faults"] else 1
        assert arrived[line["id"]] == line["deliveries"]["acked"] == expected, line
        check_charge(line)
        assert not ("drop" in line["faults"] and line["responseLost"])
    assert {"overcharge", "undercharge", "charged_failure", "duplicate"} <= set(named)
    assert books["charged"] == sum(line["creditsCharged"] for line in books["tasks"])
    assert books["opening"] - books["charged"] == books["remaining"]
    reported = {
        arrival.body["task"]["id"]: arrival.body["credits"]["creditsCharged"] for arrival in receiver.arrivals
    }
    assert all(
        reported.get(line["id"], line["creditsCharged"]) == line["creditsCharged"] for line in books["tasks"]
    )


def check_charge(line: dict[str, Any]) -> None:
    """A wrong charge is never one that C-E.5 would explain, and a right one always is."""
    estimate, charged, named = line["creditsToCharge"], line["creditsCharged"], set(line["faults"])
    legitimate = {0} if line["status"] == "FAILED" else {estimate + line["clusters"]}
    explained = {0} if line["status"] == "FAILED" else {estimate}
    if line["status"] == "COMPLETED" and line["taskType"] == "AIMODE":
        explained = set(range(estimate, estimate + 7))
    wrong = named & {"overcharge", "undercharge", "charged_failure"}
    if not wrong:
        assert charged in legitimate, line
        return
    assert charged not in explained, line
    assert charged > 0, line
    assert wrong == (
        {"charged_failure"}
        if line["status"] == "FAILED"
        else {"overcharge"}
        if charged > estimate
        else {"undercharge"}
    )


async def test_counts_do_not_depend_on_the_order_of_arrival(emulate: Any, receiver: Receiver) -> None:
    seen = []
    for order in (range(200), reversed(range(200))):
        provider = await emulate(scale=3000.0, requests_per_s=0, seed=5, faults=FaultRates(**FAULTY))
        await submit(provider, receiver, 200, order)
        books = await provider.quiet()
        named = Counter(name for line in books["tasks"] for name in line["faults"])
        seen.append({name: named[name] for name in ("fail", "drop", "duplicate", "lose_response")})
    assert seen[0] == seen[1]


def test_rates_are_met() -> None:
    rates = FaultRates(fail=0.03, duplicate=0.01, drop=0.02, lose_response=0.01, wrong_charge=0.005)
    fates = [fate_of(rates, 0, number, has_webhook=True) for number in range(20_000)]
    for name, rate in (
        ("fails", 0.03),
        ("duplicates", 0.01),
        ("drops", 0.02),
        ("loses_response", 0.01),
        ("wrong_charge", 0.005),
    ):
        share = sum(getattr(fate, name) for fate in fates) / len(fates)
        assert rate * 0.75 <= share <= rate * 1.25, name
    assert not any(fate.drops and (fate.duplicates or fate.loses_response) for fate in fates)


def test_nothing_to_drop_without_a_webhook() -> None:
    fate = fate_of(FaultRates(drop=1.0, duplicate=1.0, late=1.0, bad_signature=1.0), 0, 1, has_webhook=False)
    assert fate.names() == []


async def test_dropped_means_none_of_the_five_attempts(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(drop=1.0))
    await provider.create(webhook={"url": receiver.url})
    await provider.step(4000)
    assert receiver.arrivals == []
    assert (await provider.books())["pending_deliveries"] == 0


async def test_duplicates_have_a_ladder_of_their_own(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(duplicate=1.0, internal_retry=0))
    receiver.script = [200, 500, 500]
    task_id = await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    assert (await provider.books())["pending_deliveries"] == 1
    await provider.step(4000)
    ids = [arrival.headers["X-Cloro-Webhook-Id"] for arrival in receiver.arrivals]
    assert ids == [f"{task_id}-{attempt}" for attempt in range(1, 5)]
    assert len({arrival.raw for arrival in receiver.arrivals}) == 1
    assert (await provider.books())["tasks"][0]["deliveries"] == {"sent": 4, "acked": 2}


async def test_shuffled_deliveries_count_as_pending(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(shuffle_s=1000.0, internal_retry=0))
    await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    books = await provider.books()
    assert (books["active_tasks"], books["pending_deliveries"], receiver.arrivals) == (0, 1, [])
    await provider.step(1000)
    assert (await provider.books())["pending_deliveries"] == 0


async def test_shuffle_changes_the_order(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(shuffle_s=100.0, internal_retry=0), concurrency=1)
    ids = [await provider.create(webhook={"url": receiver.url}) for _ in range(20)]
    await provider.step(600)
    arrived = [arrival.body["task"]["id"] for arrival in receiver.arrivals]
    assert sorted(arrived) == sorted(ids)
    assert arrived != ids


async def test_late_deliveries(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(late=1.0, late_s=900.0, internal_retry=0))
    await provider.create(webhook={"url": receiver.url})
    await provider.step(890)
    assert receiver.arrivals == []
    await provider.step(20)
    assert len(receiver.arrivals) == 1
    assert (await provider.books())["tasks"][0]["faults"] == ["late"]


@pytest.mark.parametrize("name", ["bad_signature", "stale_timestamp", "truncated_body"])
async def test_broken_first_attempt(emulate: Any, receiver: Receiver, name: str) -> None:
    """The first attempt cannot be verified, the second, two minutes later, can."""
    provider = await emulate(faults=FaultRates(**{name: 1.0, "internal_retry": 0.0}))
    receiver.script = [401]
    await provider.create(webhook={"url": receiver.url})
    await provider.step(200)
    first, second = receiver.arrivals
    assert not verify(first)
    assert verify(second)
    if name == "truncated_body":
        with pytest.raises(json.JSONDecodeError):
            _ = first.body
    assert (await provider.books())["tasks"][0]["faults"] == [name]


async def test_lost_response(emulate: Any, receiver: Receiver) -> None:
    """The task is stored, the connection cut before any byte; a resend meets 409."""
    provider = await emulate(faults=FaultRates(lose_response=1.0))
    task = provider.task(idempotencyKey="k", webhook={"url": receiver.url})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await provider.post("/v1/async/task", task)
    assert (await provider.post("/v1/async/task", task)).status == 409
    await provider.step(60)
    assert receiver.arrivals[0].body["task"]["idempotencyKey"] == "k"
    (line,) = (await provider.books())["tasks"]
    assert (line["responseLost"], line["faults"]) == (True, ["lose_response"])


async def test_lost_response_of_a_batch(emulate: Any) -> None:
    provider = await emulate(faults=FaultRates(lose_response=1.0))
    tasks = [provider.task(idempotencyKey=f"k-{number}") for number in range(3)]
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await provider.post("/v1/async/task/batch", tasks)
    again = (await provider.post("/v1/async/task/batch", tasks)).body
    assert again["summary"] == {"total": 3, "succeeded": 0, "failed": 3}
    books = await provider.books()
    assert books["totals"]["responses_lost"] == 1
    assert all(line["responseLost"] for line in books["tasks"])


async def test_wrapped_response(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(wrapped_response=1.0))
    task_id = await provider.create("GOOGLE", webhook={"url": receiver.url})
    await provider.step(60)
    for body in (await provider.status(task_id), receiver.arrivals[0].body):
        assert set(body["response"]) == {"success", "result"}
        assert body["response"]["result"]["organicResults"]


@pytest.mark.parametrize(
    ("name", "status"), [("storm_429", 429), ("error_500", 500), ("unavailable_503", 503), ("html_502", 502)]
)
async def test_request_faults_have_no_effect(emulate: Any, name: str, status: int) -> None:
    provider = await emulate(faults=FaultRates(**{name: 1.0}))
    reply = await provider.post("/v1/async/task", provider.task())
    assert reply.status == status
    assert (await provider.books())["totals"]["tasks"] == 0


async def test_pages_of_a_gateway_have_no_effect_and_no_word_of_the_provider(emulate: Any) -> None:
    provider = await emulate(faults=FaultRates(gateway=1.0))
    seen = set()
    for page in PAGES:
        reply = await provider.post("/v1/async/task", provider.task())
        assert reply.status == page.status
        assert "X-RateLimit-Limit" not in reply.headers
        assert b'"error"' not in reply.raw
        seen.add((reply.status, reply.raw))
    assert len(seen) == len(PAGES)
    assert (await provider.books())["totals"]["tasks"] == 0


async def test_cut_connection(emulate: Any) -> None:
    provider = await emulate(faults=FaultRates(cut_connection=1.0))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await provider.post("/v1/async/task", provider.task())
    assert (await provider.books())["totals"]["tasks"] == 0


async def test_slow_answers(emulate: Any) -> None:
    loop = asyncio.get_running_loop()
    provider = await emulate(faults=FaultRates(slow=1.0, slow_s=0.05))
    started = loop.time()
    assert (await provider.post("/v1/async/task", provider.task())).status == 200
    assert loop.time() - started >= 0.045


async def test_string_errors(emulate: Any) -> None:
    provider = await emulate(edition="2026", faults=FaultRates(string_errors=1.0))
    reply = await provider.post("/v1/async/task", {})
    assert isinstance(reply.body["error"], str)


async def test_request_faults_by_rate(emulate: Any) -> None:
    provider = await emulate(requests_per_s=0, faults=FaultRates(error_500=0.2, unavailable_503=0.2))
    statuses = Counter([(await provider.get("/v1/async/status")).status for _ in range(400)])
    assert set(statuses) == {200, 500, 503}
    assert all(50 <= statuses[status] <= 110 for status in (500, 503)), statuses
    injected = (await provider.get("/_emulator/faults", key=None)).body["injected"]
    assert injected == {"error_500": statuses[500], "unavailable_503": statuses[503]}


async def test_faults_are_switched_at_run_time(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate()
    await provider.control("faults", {"fail": 1, "seed": 3})
    failing = await provider.create()
    await provider.call("DELETE", "/_emulator/faults", key=None)
    sound = await provider.create()
    await provider.step(3600)
    assert (await provider.status(failing))["task"]["status"] == "FAILED"
    assert (await provider.status(sound))["task"]["status"] == "COMPLETED"
    for wrong in ({"fail": 2}, {"fail": -1}, {"nonsense": 1}, {"fail": "x"}, {"fail": True}):
        assert (await provider.post("/_emulator/faults", wrong, key=None)).status == 400


async def test_terminal_polls_are_counted(emulate: Any) -> None:
    provider = await emulate()
    task_id = await provider.create()
    await provider.status(task_id)
    await provider.step(60)
    for _ in range(2):
        await provider.status(task_id)
    (line,) = (await provider.books())["tasks"]
    assert line["terminalPolls"] == 2
    assert line["firstTerminalPollAt"] == "2025-01-15T12:01:00.000Z"
    assert line["firstAckAt"] is None
    await eventually(lambda: True)


async def test_overtaken_create_answer(emulate: Any, receiver: Receiver) -> None:
    """The webhook is acknowledged before the create call returns (C-I.5, race)."""
    provider = await emulate(scale=5000.0, faults=FaultRates(overtaken=1.0, internal_retry=0))
    task_id = await provider.create(webhook={"url": receiver.url})
    assert [arrival.body["task"]["id"] for arrival in receiver.arrivals] == [task_id]
    assert (await provider.books())["tasks"][0]["faults"] == ["overtaken"]
