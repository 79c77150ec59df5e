"""Several processes of each kind on one machine, with one setting: each is scraped by itself, what they count
adds up, and everything that is measured is there, and moves."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.config import EMULATOR_WEBHOOK_SECRET
from app.domain.relay.message import NewEndpoint, new_secret
from tests.e2e.otlp import Collector, collecting
from tests.e2e.stack import STOP, Stack, running_stack
from tests.e2e.timelapse import Recorder, Tick
from tests.integration.relay.receiver import receiving
from tests.integration.web.receiving import delivery_body, signed
from tests.servers.processes import free_port
from tests.servers.valkey import ValkeyServer
from tests.signals import families

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COUNT = 60
OLD_SECRET = f"whsec_{'1' * 32}"
FAULTS = ("error_500", "storm_429", "drop")
ELSEWHERE = {
    "tallyhook_archive_lag_seconds": "alerts/late.py",
    "tallyhook_connections_cut": "integration/web/test_serving.py",
    "tallyhook_credits_end_seconds": "alerts/credits.py",
    "tallyhook_database_failures": "alerts/parts.py",
    "tallyhook_deliveries_lost": "alerts/provider.py",
    "tallyhook_drift_credits": "alerts/credits.py",
    "tallyhook_duty_failures": "alerts/parts.py",
    "tallyhook_inbox_commit_failures": "alerts/parts.py",
    "tallyhook_jobs": "alerts/parts.py",
    "tallyhook_poll_overdue_seconds": "alerts/provider.py",
    "tallyhook_redis_failures": "alerts/parts.py",
    "tallyhook_unknown_credits": "alerts/late.py",
    "tallyhook_unverified_bytes": "integration/web/test_refusing.py",
    "tallyhook_wake_failures": "integration/web/test_waking.py",
    "tallyhook_wakes_dropped": "integration/web/test_waking.py",
}
"""What moves by rarer faults only, and where these are met."""
SUFFIX = {"histogram": "_count", "counter": "_total"}
Values = dict[tuple[str, str], float]


def scraped(urls: Iterable[str]) -> dict[str, Values]:
    """URL -> (name, labels) -> value, of each process that shows metrics there."""
    found: dict[str, Values] = {}
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                text = response.read().decode()
        except urllib.error.URLError:
            continue
        found[url] = {
            (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    return found


def total(values: Iterable[Values], name: str) -> float:
    return sum(value for each in values for (found, _), value in each.items() if found == name)


def kinds(found: dict[str, Values]) -> list[str]:
    return sorted(
        json.loads(labels)["process"]
        for values in found.values()
        for name, labels in values
        if name == "tallyhook_process_info"
    )


def post(url: str, body: bytes, secret: str, now_s: int) -> int:
    request = urllib.request.Request(url, body, signed(body, now_s, secret=secret))
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


async def everything_happens(stack: Stack) -> None:
    """Prompts, pushes, an old secret, forgeries, repeats, junk, a paused run, requests of an API."""
    token = await stack.token("read")
    async with receiving() as receiver:
        stack.change_faults(dict.fromkeys(FAULTS, 0.1))
        await stack.submit(COUNT, push_to=NewEndpoint(receiver.url, new_secret()))
        now_s = await stack.store.health.database_ms() // 1000
        url = f"{stack.web_url}/webhooks/cloro"
        junk = b'{"task": {"status": "NONE"}}'
        posts = [(junk, EMULATOR_WEBHOOK_SECRET), (junk, EMULATOR_WEBHOOK_SECRET), (junk + b" ", OLD_SECRET)]
        taken = [await asyncio.to_thread(post, url, body, secret, now_s) for body, secret in posts]
        assert taken == [200, 200, 200]
        forged = [
            await asyncio.to_thread(post, url, delivery_body(n), "whsec_" + "0" * 32, now_s) for n in (1, 2)
        ]
        assert forged == [401, 401]
        request = urllib.request.Request(
            f"{stack.api_url}/v1/runs", headers={"Authorization": f"Bearer {token}"}
        )
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=60)
        await stack.until_finished()
        stack.change_faults(dict.fromkeys(FAULTS, 0.0))


async def until_looked_ahead(stack: Stack, recorder: Recorder) -> None:
    """What is known of work that is under way, by whoever looks ahead."""
    stack.control("clock", {"scale": 0.1})
    await stack.submit(20)

    async def looked() -> bool:
        shown = {name for tick in recorder.ticks[-10:] for name, _ in tick}
        return {
            f"tallyhook_{name}" for name in ("slots", "burn_credits_per_hour", "runs_end_seconds")
        } <= shown

    await stack.until(looked, "a look ahead")
    stack.control("clock", {"scale": 60})
    await stack.until_finished()
    await asyncio.sleep(1)  # the next look at the state


async def test_several_processes_of_each_kind_are_scraped_by_themselves(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    first = free_port()
    env = {
        "TALLYHOOK_METRICS_PORT": str(first),
        "TALLYHOOK_SHARE_PORT": "true",
        "TALLYHOOK_STATE_EVERY_S": "0.2",
        "TALLYHOOK_FORECAST_EVERY_S": "0.5",
        "TALLYHOOK_NOTICE_EVERY_S": "0.5",
        "TALLYHOOK_ARCHIVE_URL": str(tmp_path / "archive"),
        "CLORO_WEBHOOK_SECRET": f"{EMULATOR_WEBHOOK_SECRET},{OLD_SECRET}",
    }
    urls = [f"http://127.0.0.1:{port}/metrics" for port in range(first, first + 32)]
    async with contextlib.AsyncExitStack() as opened:
        collector = await opened.enter_async_context(collecting())
        env |= {"TALLYHOOK_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        running = running_stack(tmp_path, postgres_url, valkey.url, "--time-scale", "60", env=env)
        stack = await opened.enter_async_context(running)
        # By threads: the collector answers meanwhile.
        await asyncio.to_thread(stack.start, "web2", "worker2", "api")

        async def all_there() -> bool:
            return kinds(await asyncio.to_thread(scraped, urls)) == ["api", "web", "web", "worker", "worker"]

        await stack.until(all_there, "five scrape ports")
        recorder = Recorder({url: url for url in await asyncio.to_thread(scraped, urls)})
        recorder.start()
        await everything_happens(stack)
        await until_looked_ahead(stack, recorder)
        ticks = await recorder.settled(len(recorder.ticks))
        await recorder.stop()
        assert_they_add_up(await asyncio.to_thread(scraped, urls))
        still = {name for name, (kind, _, _) in families().items() if not moved(name, kind, ticks)}
        still -= ELSEWHERE.keys()
        assert not still, f"not shown, or 0 whatever happens: {', '.join(sorted(still))}"
        for name in ("worker", "worker2", "web", "web2"):
            await asyncio.to_thread(stack.end, name, STOP)  # which sends the last spans
        assert_spans_are_linked(collector)
        logs = "".join((tmp_path / f"{name}.log").read_text() for name in ("worker", "worker2"))
        ids = {line["trace_id"] for line in map(json.loads, logs.splitlines()) if "trace_id" in line}
        assert ids, "lines that are written within a span name it"


def assert_spans_are_linked(collector: Collector) -> None:
    """A delivery's with the send of its task, whichever processes they are of."""
    sends, taken = collector.ids("submit"), collector.ids("accept")
    assert len(sends) >= COUNT
    assert len(taken) >= COUNT / 2
    assert collector.links("settle")
    assert collector.links("settle") <= sends
    assert collector.links("relay")
    assert collector.links("relay") <= sends
    assert collector.links("commit") <= taken
    assert collector.ids("sweep")
    assert collector.ids("settle group")


def assert_they_add_up(after: dict[str, Values]) -> None:
    """Each process tells of itself alone, and one worker of the whole."""
    values = list(after.values())
    assert total(values, "tallyhook_settled_total") >= COUNT
    assert total(values, "tallyhook_deliveries_refused_total") == 2
    of_the_whole = [each for each in values if total([each], "tallyhook_state_read_timestamp_seconds")]
    assert len(of_the_whole) == 1


def moved(name: str, kind: str, ticks: Sequence[Tick]) -> bool:
    shown = f"{name}{SUFFIX.get(kind, '')}"
    return any(value for tick in ticks for (series, _), value in tick.items() if series == shown)
