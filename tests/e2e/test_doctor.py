"""The doctor against real processes: it finds nothing where all is well, and names each thing that is not."""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa

from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks
from app.cli.doctor.database import check_database
from app.cli.doctor.doctor import document, examine
from app.cli.doctor.redis import check_redis
from app.cli.doctor.stored import check_worker
from app.config import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET, Settings, load_settings
from app.database_clock import wall_ms
from app.local.processes import Process, Processes
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import processes
from tests.conftest import StartValkey
from tests.servers.postgres import PostgresServer, database_name
from tests.servers.processes import free_port

START_TIMEOUT_S = 60.0


def ready_url(process: Process) -> str:
    """The URL that a process prints when it listens."""
    until = time.monotonic() + START_TIMEOUT_S
    while '"ready"' not in process.log.read_text():
        assert process.running, process.log_tail()
        assert time.monotonic() < until, process.log_tail()
        time.sleep(0.02)
    line = next(text for text in process.log.read_text().splitlines() if '"ready"' in text)
    return str(json.loads(line)["url"])


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers does so, however busy the machine is."""
    monkeypatch.setattr("app.cli.doctor.doctor.CHECK_TIMEOUT_S", 60.0)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running emulator and a running web, on an embedded Valkey and SQLite."""
    folder = tmp_path_factory.mktemp("doctor")
    ours = ("TALLYHOOK_", "CLORO_", "DATABASE_URL", "REDIS_URL", "PUBLIC_URL")
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    env |= {"PORT": "0", "TALLYHOOK_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "app.cli.main"]
    with Processes(folder / "logs") as processes:
        emulator = processes.spawn("emulator", [*command, "emulator", "--port", "0", "--json"], env=env)
        web = processes.spawn("web", [*command, "web", "--json"], env=env)
        yield {"emulator": ready_url(emulator), "web": ready_url(web), "data_dir": str(folder / "data")}


def settings_for(urls: dict[str, str], **changes: str) -> Settings:
    values = {
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "CLORO_API_KEY": EMULATOR_KEY,
        "PUBLIC_URL": urls["web"],
        "CLORO_BASE_URL": urls["emulator"],
        "CLORO_WEBHOOK_SECRET": EMULATOR_WEBHOOK_SECRET,
        **changes,
    }
    data_dir, patience_s = Path(urls["data_dir"]), {"redis_timeout_s": 20.0, "database_timeout_s": 20.0}
    return load_settings(_env_file=None, data_dir=data_dir, **patience_s, **values)


def beat(url: str, process_id: str = "00000000-0000-4000-8000-000000000001") -> None:
    async def work() -> None:
        store = Store(Database(url), read_answer)
        await store.health.beat(process_id, "worker")
        await store.close()

    asyncio.run(work())


def run_tallyhook(*arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    ours = ("TALLYHOOK_", "CLORO_", "DATABASE_URL", "REDIS_URL", "PUBLIC_URL")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=kept | env,
        timeout=100,
    )


def examined(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(examine(settings))}


def test_nothing_is_wrong_where_all_is_well(urls: dict[str, str]) -> None:
    beat(f"sqlite:///{urls['data_dir']}/tallyhook.db")
    # No key is set, so the emulator is the provider, and loopback is as public as it needs to be.
    checks = examined(settings_for(urls, CLORO_API_KEY="", CLORO_WEBHOOK_SECRET=""))
    assert {check.state for check in checks.values()} == {"ok"}, checks
    assert set(checks) == {
        "retention",
        "API key",
        "webhook secret",
        "public URL",
        "database",
        "redis",
        "redis persistence",
        "redis eviction",
        "provider",
        "balance",
        "webhook",
        "worker",
        "ages",
        "redis clock",
        "provider clock",
    }
    assert document(list(checks.values()))["healthy"] is True
    assert "0 tasks queued" in checks["provider"].detail


@pytest.mark.parametrize(
    ("changes", "name", "state", "words"),
    [
        ({"CLORO_API_KEY": "sk_test_" + "e" * 32}, "provider", "fault", "refuses the API key (401)"),
        ({"CLORO_WEBHOOK_SECRET": "another"}, "webhook", "fault", "not with our secret"),
        ({"PUBLIC_URL": "http://127.0.0.1:1"}, "webhook", "fault", "connection refused"),
        ({"PUBLIC_URL": ""}, "public URL", "fault", "is not set"),
        ({"PUBLIC_URL": "http://hooks.invalid"}, "public URL", "warning", "not encrypted"),
        ({}, "public URL", "fault", "nobody but this machine"),
        ({"CLORO_WEBHOOK_SECRET": "a,b"}, "webhook secret", "ok", "2 set"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "redis", "fault", "cannot reach Redis"),
        ({"DATABASE_URL": "sqlite:///{data_dir}/own.db"}, "database", "fault", "is at revision None"),
        ({"CLORO_BASE_URL": "http://127.0.0.1:1"}, "provider", "fault", "cannot reach"),
    ],
)
def test_each_fault_is_named_with_its_remedy(
    urls: dict[str, str], changes: dict[str, str], name: str, state: str, words: str
) -> None:
    filled = {key: value.format(**urls) for key, value in changes.items()}
    check = examined(settings_for(urls, **filled))[name]
    assert (check.state, words in check.detail) == (state, True), check
    assert check.state == "ok" or check.remedy


def test_f6_what_happens_while_the_balance_is_unknown_is_reported(urls: dict[str, str]) -> None:
    answer = examined(settings_for(urls))["balance"]
    assert (answer.state, "credits; while it is unknown, the last one counts for 600 s" in answer.detail) == (
        "ok",
        True,
    ), answer
    # Something else in the provider's place.
    away = settings_for(urls, CLORO_BASE_URL=urls["web"])
    for policy, words in (("wait", "then nothing is sent"), ("send", "it is not looked at")):
        check = examined(away.model_copy(update={"balance_unknown": policy}))["balance"]
        assert (check.state, "HTTP 404" in check.detail, words in check.detail) == ("warning", True, True), (
            check
        )


def test_the_webhook_url_may_lead_to_something_else(urls: dict[str, str]) -> None:
    check = examined(settings_for(urls, PUBLIC_URL=urls["emulator"]))["webhook"]
    assert (check.state, "answers 404" in check.detail) == ("fault", True), check


def test_w6_a_database_that_forgets_commits_is_a_fault(
    urls: dict[str, str], postgres_url: str, postgres: PostgresServer
) -> None:
    def looked_at(synchronous_commit: str) -> Check:
        async def alter() -> None:
            connection = await asyncpg.connect(postgres_url)
            await connection.execute(f"{own} SET synchronous_commit TO {synchronous_commit}")
            await connection.close()

        asyncio.run(alter())
        return examined(settings_for(urls, DATABASE_URL=postgres_url))["database"]

    own = f'ALTER DATABASE "{database_name(postgres_url)}"'
    try:
        check = looked_at("off")
        assert (check.state, "synchronous_commit=off" in check.detail) == ("fault", True), check
        check = looked_at("on")
        assert check.state == "ok" or "fsync=off" in check.detail, "as on the tests' own server"
        assert (check.state != "fault", "synchronous_commit" in check.detail) == (True, False), check
    finally:
        postgres.execute(f"{own} RESET synchronous_commit")


def test_f21_a_server_that_takes_no_writes_is_reported_as_that(
    urls: dict[str, str], postgres_url: str, postgres: PostgresServer
) -> None:
    name = database_name(postgres_url)

    def looked_at(url: str) -> Check:
        return asyncio.run(check_database(settings_for(urls, DATABASE_URL=url)))

    postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only TO on')
    try:
        check = looked_at(postgres_url)
        assert (check.state, "takes no writes" in check.detail) == ("fault", True), check
        assert "default_transaction_read_only=on, from: database" in check.detail, check
        prompts = Path(urls["data_dir"]) / "prompts.jsonl"
        prompts.write_text('{"prompt": "x", "engine": "chatgpt", "country": "US"}\n')
        done = run_tallyhook("submit", str(prompts), "--json", env={"DATABASE_URL": postgres_url})
        answer = json.loads(done.stdout)["error"]
        assert (done.returncode, answer["code"]) == (1, "database_takes_no_writes"), answer
        assert "cannot reach" not in answer["message"], answer
    finally:
        postgres.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert "pg_is_in_recovery" not in looked_at(postgres_url).detail
    with postgres.standby() as admin_url:
        port = urlsplit(admin_url).port
        check = looked_at(urlsplit(postgres_url)._replace(netloc=f"postgres@127.0.0.1:{port}").geturl())
        assert (check.state, "is a standby (pg_is_in_recovery)" in check.detail) == ("fault", True), check
        assert "name the primary" in check.remedy


@pytest.mark.parametrize("held", ["write", "everything"])
def test_f21_a_file_that_another_process_keeps_locked_is_reported_in_time(
    urls: dict[str, str], sqlite_url: str, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    monkeypatch.setattr("app.cli.doctor.stored.SQLITE_BUSY_MS", 100)
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
        if held == "everything":
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        check = examined(settings_for(urls, DATABASE_URL=sqlite_url))["database"]
    assert (check.state, "locked" in check.detail, "fuser" in check.remedy) == ("fault", True, True), check


def test_f21_what_a_full_disk_refuses_is_found_though_a_rollback_never_meets_it(
    urls: dict[str, str], sqlite_url: str
) -> None:
    """A file that may not grow any more: it answers reads, and small writes that are taken back."""
    path = sqlite_url.removeprefix("sqlite:///")

    def no_growth(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite makes it what there is

    sa.event.listen(sa.Pool, "connect", no_growth)
    try:
        check = examined(settings_for(urls, DATABASE_URL=sqlite_url))["database"]
    finally:
        sa.event.remove(sa.Pool, "connect", no_growth)
    assert (check.state, "its disk is full" in check.detail) == ("fault", True), check
    assert examined(settings_for(urls, DATABASE_URL=sqlite_url))["database"].state == "ok"
    with contextlib.closing(sqlite3.connect(path)) as looked:
        assert looked.execute("SELECT count(*) FROM leases").fetchone() == (0,), "what was tried is gone"


def test_f21_a_place_where_no_database_can_be_made_is_reported(urls: dict[str, str], tmp_path: Path) -> None:
    settings = settings_for(urls).model_copy(update={"data_dir": Path("/proc/nowhere/data")})
    check = asyncio.run(check_database(settings))
    assert (check.state, "cannot make the embedded SQLite" in check.detail) == ("fault", True), check
    settings = settings.model_copy(update={"data_dir": tmp_path / "not" / "there"})
    assert asyncio.run(check_database(settings)).state == "ok"
    assert list(tmp_path.iterdir()) == [], "nothing stays"


@pytest.mark.parametrize(("made", "words"), [("a directory", "is a directory"), ("cut", "is damaged")])
def test_f21_an_embedded_database_that_is_none_is_reported(
    urls: dict[str, str], sqlite_url: str, tmp_path: Path, made: str, words: str
) -> None:
    data_dir = tmp_path / "100%41 #1?"
    data_dir.mkdir()
    whole = Path(sqlite_url.removeprefix("sqlite:///")).read_bytes()
    if made == "cut":
        (data_dir / "tallyhook.db").write_bytes(whole[:5000])
    else:
        (data_dir / "tallyhook.db").mkdir()
    settings = settings_for(urls).model_copy(update={"data_dir": data_dir})
    check = asyncio.run(check_database(settings))
    assert (check.state, words in check.detail) == ("fault", True), check
    if made == "a directory":
        done = run_tallyhook("runs", "--json", env={"TALLYHOOK_DATA_DIR": str(data_dir)})
        assert (done.returncode, words in done.stdout) == (1, True), done
    else:
        (data_dir / "tallyhook.db").write_bytes(whole)
        assert asyncio.run(check_database(settings)).state == "ok"
        assert sorted(path.name for path in tmp_path.iterdir()) == [data_dir.name, "tallyhook.db"]


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0.0, "ok", "agrees with"),
        (1.4, "ok", "agrees with"),
        (5.0, "warning", " s ahead of"),
        (-5.0, "warning", " s behind"),
        (75.0, "fault", " s ahead of"),
        (-90_000.0, "fault", "25.0 h behind"),
    ],
)
async def test_f18_doctor_compares_clocks(
    urls: dict[str, str], postgres_url: str, valkey_url: str, ahead_s: float, state: str, words: str
) -> None:
    settings = settings_for(urls, DATABASE_URL=postgres_url, REDIS_URL=valkey_url)
    clocks = Clocks(wall=lambda: wall_ms() + round(ahead_s * 1000))
    checks = {check.name: check for check in await examine(settings, clocks)}
    for name, whose in (("database", "the database's"), ("redis", "Redis's"), ("provider", "the provider's")):
        check = checks[f"{name} clock"]
        assert (check.state, words in check.detail, whose in check.detail) == (state, True, True), check
        assert (check.state == "ok") != bool(check.remedy)
        assert check.state == "ok" or check.remedy.startswith("set this machine's time"), "all others agree"


def test_f18_a_process_with_a_wrong_clock_says_so(
    urls: dict[str, str], postgres_url: str, valkey_url: str, tmp_path: Path
) -> None:
    (tmp_path / "offset").write_text("75")
    env = {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": valkey_url,
        "CLORO_BASE_URL": urls["emulator"],
        "CLORO_API_KEY": EMULATOR_KEY,
        "CLORO_WEBHOOK_SECRET": EMULATOR_WEBHOOK_SECRET,
        "PYTHONPATH": str(Path(__file__).parent / "shifted_clock"),
        "SHIFTED_CLOCK_FILE": str(tmp_path / "offset"),
    }
    done = run_tallyhook("doctor", "--json", env=env)
    answer = json.loads(done.stdout)
    faults = [
        check["name"] for check in answer["checks"] if check["state"] == "fault" and "clock" in check["name"]
    ]
    assert (done.returncode, answer["healthy"]) == (1, False)
    assert faults == ["database clock", "redis clock", "provider clock"], answer


def test_w18_a_database_of_a_later_version_is_no_fault(urls: dict[str, str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'later.db'}"

    async def make() -> None:
        database = Database(url)
        await migrate(database)
        async with database.engine.begin() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        await database.close()

    asyncio.run(make())
    check = examined(settings_for(urls, DATABASE_URL=url))["database"]
    assert (check.state, "at revision 9999, newer than the 0" in check.detail) == ("ok", True), check


def test_an_evicting_redis_is_a_fault(urls: dict[str, str], start_valkey: object) -> None:
    server = start_valkey(appendonly=False, maxmemory="50mb", **{"maxmemory-policy": "allkeys-lru"})  # type: ignore[operator]
    checks = examined(settings_for(urls, REDIS_URL=server.url))
    assert checks["redis eviction"].state == "fault"
    assert checks["redis persistence"].state == "warning"


def test_f21_whatever_hangs_each_check_ends_in_time(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Database, Redis, provider and public URL all accept and say nothing."""
    monkeypatch.setattr("app.cli.doctor.doctor.CHECK_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = settings_for(
            urls,
            DATABASE_URL=f"postgresql://u@{at}/d",
            REDIS_URL=f"redis://{at}",
            PUBLIC_URL=f"http://{at}",
            CLORO_BASE_URL=f"http://{at}",
        )
        checks = examined(settings)
    for name in ("database", "redis", "provider", "webhook"):
        assert checks[name].state == "fault" and checks[name].remedy, checks[name]


def test_f21_settings_with_which_no_worker_starts_are_reported(urls: dict[str, str]) -> None:
    settings = settings_for(urls).model_copy(update={"notice_url": "https://hooks.example.com/"})
    assert examined(settings)["notices"].state == "fault"


async def test_f21_a_worker_that_ended_or_was_killed_is_reported_with_the_time(
    postgres_url: str, urls: dict[str, str]
) -> None:
    """By the database's time; a moment that lies ahead says nothing."""
    settings, store = (
        settings_for(urls, DATABASE_URL=postgres_url),
        Store(Database(postgres_url), read_answer),
    )
    (check,) = await check_worker(settings)
    assert (check.state, "none is known to have run" in check.detail) == ("warning", True)
    first, second = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))

    async def set_back(ms: int, process_id: str) -> None:
        async with store.db.engine.begin() as connection:
            mine = processes.c.id == process_id
            await connection.execute(
                sa.update(processes).where(mine).values(seen_at_ms=processes.c.seen_at_ms - ms)
            )

    try:
        await store.health.beat(first, "worker")
        await store.health.beat(second, "worker")
        await store.health.end_process(first, "worker")
        (check,) = await check_worker(settings)
        assert (check.state, check.detail) == ("ok", "a worker is running")
        await set_back(40_000, second)
        (check,) = await check_worker(settings)
        assert "no worker has run since" in check.detail, "one ended in order, the other died"
        await set_back(-90_000_000, second)
        (check,) = await check_worker(settings)
        assert "no worker has run since" in check.detail, "a wrong clock wrote it"
    finally:
        await store.close()


def test_f21_a_redis_that_answers_and_cannot_be_used_is_reported(
    urls: dict[str, str], start_valkey: StartValkey
) -> None:
    def looked_at(url: str) -> Check:
        return {check.name: check for check in asyncio.run(check_redis(settings_for(urls, REDIS_URL=url)))}[
            "redis"
        ]

    server = start_valkey(appendonly=False)
    assert looked_at(server.url).state == "ok"
    with server.client() as client:
        assert client.dbsize() == 0, "what was tried is taken away"
        for rights, words in (
            ("-eval", "eval"),
            ("-zadd", "zadd"),
            ("resetkeys ~other:*", "a key"),
            ("-info", ""),
        ):
            client.execute_command("ACL", "SETUSER", "u", "reset", "on", ">p", "+@all", "~*", *rights.split())
            check = looked_at(server.url.replace("//", "//u:p@"))
            assert (check.state == "fault", words in check.detail) == (bool(words), True), check
            assert check.state == "ok" or "ACL SETUSER" in check.remedy, check
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
        assert looked_at(server.url).state != "ok", "it is nearly full"
        client.config_set("maxmemory", "100kb")
        check = looked_at(server.url)
        assert (check.state, "maxmemory" in check.detail + check.remedy) == ("fault", True), check
        client.config_set("maxmemory", "0")
    replica = start_valkey(appendonly=False, replicaof=f"127.0.0.1 {server.port}")
    check = looked_at(replica.url)
    assert (check.state, "is a replica of 127.0.0.1" in check.detail) == ("fault", True), check
    # Not 10,000 above its own, which may be no port any more.
    bus = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    cluster = start_valkey(appendonly=False, **bus)
    with cluster.client() as client:
        for rights in ("+@all", "+@all -info"):
            client.execute_command("ACL", "SETUSER", "u", "reset", "on", ">p", "~*", *rights.split())
            check = looked_at(cluster.url.replace("//", "//u:p@"))
            assert (check.state, "cluster" in check.remedy) == ("fault", True), check
