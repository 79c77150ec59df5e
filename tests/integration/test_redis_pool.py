"""Every kind of REDIS_URL against a real server: passwords, users, sockets, TLS, a sentinel's fail-over."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from arq import Worker
from arq.worker import func
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from app.address import read_redis_address
from app.cli.doctor.redis import check_redis
from app.config import load_settings
from app.provider.ratelimit.shared import SharedPacer
from app.queue import QUEUE_NAME, SETTLE_JOB, Queue, open_pool, serialize
from app.redis_pool import RedisPool
from tests.conftest import PATIENCE_S, StartValkey
from tests.servers.sentinel import MASTER, running_sentinel
from tests.servers.tls import make_authority, tls_relay
from tests.servers.valkey import ValkeyServer

TIMEOUT_S = 20.0
TURNS = 60
"""Twice as many as there are between the beginning of a command and its end."""
PASSWORD = "p#s/w@o?r:d%"


async def answers(url: str) -> bool:
    """Whether the queue and the pacer both work there; what is wrong is raised."""
    pool = open_pool(url, timeout_s=TIMEOUT_S)
    redis = Redis.from_pool(RedisPool(url, timeout_s=TIMEOUT_S, connections_max=2))
    pacer = SharedPacer(redis, "default", 100)
    try:
        assert await pacer.acquire() == 0
        return bool(await pool.ping())
    finally:
        await pacer.close()
        await pool.aclose(close_connection_pool=True)


@pytest.fixture
def guarded(start_valkey: StartValkey, tmp_path: Path) -> ValkeyServer:
    """One with a password, an ACL user and a socket."""
    server = start_valkey(appendonly=False, unixsocket=str(tmp_path / "v.sock"))
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "tally", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        client.execute_command("ACL", "SETUSER", "few", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-multi")
        client.config_set("requirepass", PASSWORD)
    return server


async def test_f23_passwords_users_and_sockets(guarded: ValkeyServer, tmp_path: Path) -> None:
    for url in (
        f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}/1",
        f"redis://tally:{PASSWORD}@127.0.0.1:{guarded.port}",
        f"redis://tally:p%23s%2Fw%40o%3Fr%3Ad%25@127.0.0.1:{guarded.port}",
        f"unix://:{PASSWORD}@{tmp_path / 'v.sock'}?db=2",
    ):
        assert await answers(url), read_redis_address(url).display
    with pytest.raises(AuthenticationError):
        await open_pool(f"redis://:wrong@127.0.0.1:{guarded.port}", timeout_s=TIMEOUT_S).ping()


async def test_f23_doctor_reports_what_is_wrong_and_no_password(guarded: ValkeyServer) -> None:
    for url, remedy in (
        (f"redis://:hush{PASSWORD}@127.0.0.1:{guarded.port}", "check user and password in REDIS_URL"),
        (f"redis://127.0.0.1:{guarded.port}", "write the password into REDIS_URL"),
        ("redis+sentinel://:hush@127.0.0.1:1/tally", "check the master's name in REDIS_URL"),
        ("unix:///no/such.sock", "check REDIS_URL"),
        (
            f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{guarded.port}/99",
            "a database that the server has",
        ),
        (f"redis://few:{PASSWORD}@127.0.0.1:{guarded.port}", "the command MULTI"),
        (f"rediss://:hush@127.0.0.1:{guarded.port}", "the server must speak TLS"),
    ):
        # The server waits for more of what is no command.
        limit_s = 1 if url.startswith("rediss:") else 20
        check = (await check_redis(load_settings(_env_file=None, REDIS_URL=url, redis_timeout_s=limit_s)))[0]
        assert (check.state, remedy in check.remedy) == ("fault", True), check
        assert "hush" not in check.detail + check.remedy


async def test_f23_tls_with_a_private_ca_and_one_that_nobody_checks(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    async with tls_relay(valkey.port, authority.server) as port:
        assert await answers(f"rediss://localhost:{port}/0?ssl_ca_certs={authority.ca_file}")
        assert await answers(f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none")
        assert await answers(
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.ca_file}&ssl_check_hostname=false"
        )
        for refused in (f"localhost:{port}", f"127.0.0.1:{port}?ssl_ca_certs={authority.ca_file}"):
            with pytest.raises(RedisError, match="CERTIFICATE_VERIFY_FAILED"):
                await answers(f"rediss://{refused}")


async def assert_no_cancellation_is_forgotten(url: str) -> None:
    """Whenever it comes: the loop around the command would go on for ever."""
    redis = Redis.from_pool(RedisPool(url, timeout_s=PATIENCE_S, connections_max=2))
    for turns in range(TURNS):
        # Half of them on a connection that is made for it.
        await (redis.connection_pool.disconnect() if turns % 2 else redis.ping())
        asking = asyncio.create_task(redis.echo(f"cancelled {turns}"))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        is_late = asking.done()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled() or is_late, f"after {turns // 2} turns of the loop"
        assert await redis.echo("mine") == b"mine"
    await redis.aclose(close_connection_pool=True)


async def test_no_command_forgets_a_cancellation(guarded: ValkeyServer, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    async with tls_relay(guarded.port, authority.server) as port:
        for url in (
            f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}",
            f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={authority.ca_file}",
            f"unix://:{PASSWORD}@{tmp_path / 'v.sock'}",
        ):
            await assert_no_cancellation_is_forgotten(url)


async def test_f23_queue_and_workers_follow_a_sentinel_to_the_new_master(
    tmp_path: Path, start_valkey: StartValkey
) -> None:
    done: list[list[str]] = []

    async def settle(_ctx: object, payload: dict[str, list[str]]) -> None:
        done.append(payload["ids"])

    async def until(queue: Queue, name: str) -> None:
        """Enqueue until it is done: between the master's end and the sentinel's choice nothing is taken."""
        async with asyncio.timeout(60):
            while [name] not in done:
                await queue.wake_settle([name])
                await asyncio.sleep(0.1)

    async def work(url: str) -> None:
        """As the supervisor of our workers does: begun again whenever Redis takes it down."""
        while True:
            pool = open_pool(url, timeout_s=TIMEOUT_S)
            worker = Worker(
                functions=[func(settle, name=SETTLE_JOB)],
                redis_pool=pool,
                queue_name=QUEUE_NAME,
                handle_signals=False,
                poll_delay=0.05,
                job_serializer=serialize,
                keep_result=0,
                job_deserializer=msgspec.json.decode,
            )
            try:
                await worker.main()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(0.1)
            finally:
                await pool.aclose(close_connection_pool=True)

    with running_sentinel(tmp_path, start_valkey) as (port, master):
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/{MASTER}/0"
        queue, working = Queue(url, timeout_s=TIMEOUT_S), asyncio.create_task(work(url))
        try:
            await until(queue, "before")
            await assert_no_cancellation_is_forgotten(url)
            master.kill()
            await until(queue, "after")
            assert await queue.ping()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await queue.close()
