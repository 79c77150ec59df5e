"""The fixtures themselves: what other tests take for granted about their servers and databases."""

import pytest
import redis

from app.store import Store
from app.store.migrate import newest_revision
from tests.clock import SteppedClock
from tests.conftest import StartValkey
from tests.servers.valkey import ValkeyServer


@pytest.mark.parametrize("round_", [1, 2])
async def test_each_store_is_migrated_and_empty(store: Store, round_: int) -> None:
    assert await store.queries.schema_revision() == newest_revision()
    assert await store.queries.list_runs() == []
    await store.runs.create_run(name=f"run {round_}", source="-", budget=None, now_ms=1)


def test_the_clock_moves_only_by_hand(clock: SteppedClock) -> None:
    before = clock()
    assert clock() == before
    assert clock.advance(1_500) == clock() == before + 1_500


@pytest.mark.parametrize("round_", [1, 2])
def test_the_session_valkey_is_empty_for_each_test(valkey: ValkeyServer, round_: int) -> None:
    with valkey.client() as client:
        assert client.dbsize() == 0
        client.set("key", round_)


def test_a_stopped_valkey_comes_back_on_its_port_with_its_data(start_valkey: StartValkey) -> None:
    server = start_valkey(appendonly=True)
    url = server.url
    with server.client() as client:
        client.set("kept", "1")
    server.stop()
    with server.client() as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()
    assert server.url == url
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get("kept") == b"1"


def test_a_paused_valkey_hangs_and_goes_on(start_valkey: StartValkey) -> None:
    server = start_valkey(appendonly=False)
    server.pause()
    with redis.Redis.from_url(server.url, socket_timeout=0.5) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    server.resume()
    with server.client() as client:
        assert client.ping()
    server.pause()
