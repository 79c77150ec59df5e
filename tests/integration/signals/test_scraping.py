"""The scrape port: each process has its own, off the public one."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.exceptions import TimeoutError as RedisTimeoutError
from yarl import URL

from app.errors import UserError
from app.ports import StoreUnavailable
from app.redis_pool import RedisPool
from app.signals.process import ProcessSignals
from app.signals.scrape import PORTS_TRIED, readiness, scraped
from app.store import Store
from tests.servers.processes import free_port


class Answers:
    """Probes that answer what they are told."""

    def __init__(self, *reasons: str) -> None:
        self.reasons: Sequence[str] = reasons

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(self, _request: web.Request) -> web.Response:
        return readiness(self.reasons)


async def got(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, await response.text()


def scraping(signals: ProcessSignals, port: int | None, host: str = "127.0.0.1") -> Any:
    return scraped(signals, Answers("draining"), host=host, port=port)


async def test_metrics_and_probes_are_served_beside_each_other() -> None:
    async with scraping(ProcessSignals("web"), 0) as url:
        status, text = await got(f"{url}/metrics")
        assert (status, 'tallyhook_process_info{process="web"} 1.0' in text.splitlines()) == (200, True)
        assert "process_resident_memory_bytes" in text
        assert await got(f"{url}/healthz") == (200, "ok\n")
        assert await got(f"{url}/readyz") == (503, '{"ready":false,"reasons":["draining"]}')
        assert (await got(f"{url}/"))[0] == 404
    with pytest.raises(aiohttp.ClientConnectionError):
        await got(f"{url}/healthz")


async def test_without_a_port_nothing_listens() -> None:
    async with scraping(ProcessSignals("web"), None) as url:
        assert url is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_a_port_that_is_taken_is_passed_over(host: str) -> None:
    port = free_port()
    async with (
        scraping(ProcessSignals("web"), port, host),
        scraping(ProcessSignals("worker"), port, host) as other,
        scraping(ProcessSignals("worker"), port, host) as third,
    ):
        assert len({other, third}) == 2
        ports = [URL(url).port or 0 for url in (other, third)]
        # Not the very next one where another process has taken that meanwhile.
        assert port < ports[0] < ports[1] < port + PORTS_TRIED
        for taken in ports:
            status, text = await got(f"http://127.0.0.1:{taken}/metrics")
            assert (status, 'process="worker"' in text) == (200, True)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
async def test_a_host_of_others_is_refused_with_a_remedy(host: str) -> None:
    with pytest.raises(UserError, match="cannot show metrics on") as caught:
        async with scraping(ProcessSignals("web"), 0, host):
            pass
    assert "TALLYHOOK_METRICS_HOST" in caught.value.remedy


async def test_a_late_event_loop_is_seen() -> None:
    signals = ProcessSignals("web")
    watching = asyncio.create_task(signals.watch_loop())
    try:
        async with asyncio.timeout(60):
            while not signals.registry.get_sample_value("tallyhook_loop_lag_seconds_count"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        watching.cancel()


async def test_transactions_are_timed_and_trouble_is_counted(store: Store) -> None:
    signals = ProcessSignals("web")
    signals.watch_database("database", store.db)

    def count(name: str, **labels: str) -> float:
        return signals.registry.get_sample_value(f"tallyhook_{name}", labels) or 0.0

    await store.health.database_ms()
    await store.health.try_write()
    assert count("database_seconds_count", kind="read") == 1
    assert count("database_seconds_count", kind="write") >= 1
    assert count("database_failures_total", kind="write") == 0
    assert count("pool_connections", pool="database", state="max") >= 5

    async def away(_connection: object) -> None:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        await store.db.read(away)
    assert count("database_failures_total", kind="read") == 1


async def test_commands_of_redis_are_timed_and_trouble_is_counted() -> None:
    signals = ProcessSignals("worker")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pool = RedisPool(
            f"redis://127.0.0.1:{silent.getsockname()[1]}",
            timeout_s=0.05,
            connections_max=2,
            watch=signals.note_redis,
        )
        signals.watch_pool("redis", pool.connections)
        with pytest.raises(RedisTimeoutError):
            await pool.get_connection()
        await pool.disconnect()
    assert signals.registry.get_sample_value("tallyhook_redis_failures_total") == 1
    assert signals.registry.get_sample_value("tallyhook_redis_seconds_count") == 1
