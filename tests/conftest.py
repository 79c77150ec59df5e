"""Fixtures that every kind of test shares: real servers, empty migrated databases, a clock that is moved by
hand. Servers start at first use, so that a run of unit tests starts none.
"""

import logging
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
import structlog

from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from tests.clock import SteppedClock
from tests.servers.postgres import PostgresServer, database_name, run_apart
from tests.servers.s3 import S3Server
from tests.servers.valkey import ValkeyServer

# No deadline, and no complaint of slow data: two cores are shared with servers. The blob printed with a
# failure reproduces it.
_PATIENT = hypothesis.settings(
    print_blob=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# The same examples each time: what passes here passes elsewhere.
hypothesis.settings.register_profile("tallyhook", _PATIENT, derandomize=True, max_examples=60)
# Others each time. make test-long, and pytest --hypothesis-profile=long
hypothesis.settings.register_profile("looking", _PATIENT, derandomize=False, max_examples=60)
hypothesis.settings.register_profile("long", _PATIENT, derandomize=False, max_examples=3_000)
hypothesis.settings.load_profile("tallyhook")

# By default rich draws each traceback with its source, tens of milliseconds each time that a test logs one.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
_UNCONFIGURED = structlog.get_config()

StartValkey = Callable[..., ValkeyServer]
PATIENCE_S = 60.0

LEFT_TO_THE_LONG_FORM = {
    "postgres": (
        "tests/e2e/test_schedules.py",
        "tests/integration/api/test_bulk_changes.py",
        "tests/integration/audit/test_booking.py",
        "tests/integration/evidence/",
        "tests/integration/notices/test_triggers.py",
        "tests/integration/notices/test_worker.py",
        "tests/integration/page/test_acting.py",
        "tests/integration/page/test_tokens_and_actions.py",
        "tests/integration/services/test_admission.py",
        "tests/integration/services/test_early_polls.py",
        "tests/integration/services/test_engine_pauses.py",
        "tests/integration/services/test_gateway.py",
        "tests/integration/services/test_half_texts.py",
        "tests/integration/services/test_open_sends.py",
        "tests/integration/verify/test_corruptions.py::test_each",
    ),
    "sqlite": (
        "tests/e2e/test_api_schema.py",
        "tests/e2e/test_bulk_changes.py",
        "tests/e2e/test_crashes.py",
        "tests/e2e/test_accounts.py",
        "tests/e2e/test_follow.py",
        "tests/e2e/test_uploads.py",
        "tests/integration/archive/test_archive_days.py",
        "tests/integration/archive/test_reading.py",
        "tests/integration/loading/test_resuming.py",
        "tests/integration/prune/test_prune_command.py",
        "tests/integration/prune/test_prune_rows.py",
        "tests/integration/prune/test_year.py",
        "tests/integration/test_hostile_bodies.py::test_f11_whatever_a_signed_body_says",
    ),
}
"""Of these the short form runs the half on the other store only. Rules of services are the same on both, and
each statement has tests of the store on both."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the long form what would make the short one long."""
    for item in items:
        for store, files in LEFT_TO_THE_LONG_FORM.items():
            if item.nodeid.startswith(files) and f"[{store}" in item.nodeid:
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def seed() -> int:
    """Of what a test draws itself: the same or another each time, as are the examples. A failure shows it."""
    return 1 if hypothesis.settings().derandomize else random.randrange(2**32)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A test may run a command in this process, which sends all logs to what pytest closes after it; so may a
    fixture of a module, before any test of it."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    structlog.configure(**_UNCONFIGURED)
    yield
    structlog.configure(**_UNCONFIGURED)
    root.handlers = before[0]
    root.setLevel(before[1])


@pytest.fixture
def clock() -> SteppedClock:
    """UTC milliseconds that stand still until `clock.advance(ms)`."""
    return SteppedClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL; see TALLYHOOK_TEST_POSTGRES for using one that is there already."""
    server = PostgresServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """Name of a migrated, empty database that is copied for each test."""
    url = postgres.create_database()
    run_apart(_migrate(url))
    yield database_name(url)
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def postgres_spares(postgres: PostgresServer) -> Iterator[list[str]]:
    """Migrated, empty databases that no test uses just now."""
    spares: list[str] = []
    yield spares
    for url in spares:
        postgres.drop_database(url)


@pytest.fixture
def postgres_url(
    postgres: PostgresServer, postgres_template: str, postgres_spares: list[str]
) -> Iterator[str]:
    """A migrated, empty PostgreSQL database. A test that changes its schema makes its own instead, by
    `postgres.create_database()`."""
    url = postgres_spares.pop() if postgres_spares else postgres.create_database(postgres_template)
    yield url
    postgres.empty_database(url)
    postgres_spares.append(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file that is copied for each test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    run_apart(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh, migrated SQLite file."""
    path = tmp_path / "tallyhook.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database of each kind, for tests that open it in several processes."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind in which nothing was ever created; its schema is the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'empty.db'}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.create_database()
    request.addfinalizer(lambda: postgres.drop_database(url))
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store on a fresh database of each kind."""
    async for opened in _open(store_url):
        yield opened


@pytest.fixture
async def sqlite_store(sqlite_url: str) -> AsyncIterator[Store]:
    """An open store on a fresh SQLite file."""
    async for opened in _open(sqlite_url):
        yield opened


@pytest.fixture
async def own_store(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[Store]:
    """An open store on a fresh PostgreSQL database, of which nobody has made statistics."""
    url = postgres.create_database(postgres_template)
    async for opened in _open(url):
        yield opened
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One Valkey for the session; use `valkey`, which is empty."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> ValkeyServer:
    """The session's Valkey, emptied. Do not stop, kill or pause it: `start_valkey` is for that."""
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def valkey_url(valkey: ValkeyServer) -> str:
    """REDIS_URL of the session's Valkey, emptied."""
    return valkey.url


@pytest.fixture
def start_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartValkey]:
    """Starts servers of the test's own: `start_valkey(appendonly=True, maxmemory="2mb")`. Each keeps its port
    over stop, kill, pause and start, and is ended with the test."""
    with ExitStack() as servers:

        def start(*, appendonly: bool = True, **config: str) -> ValkeyServer:
            server = ValkeyServer(tmp_path_factory.mktemp("valkey"), appendonly=appendonly, **config)
            servers.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 for the session; use `s3`."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The session's S3, with what its clients read in the environment. Leave it as it was found."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["folder", "s3"])
def objects_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address of each kind of object storage, with nothing there yet."""
    if request.param == "folder":
        return str(tmp_path / "objects")
    return f"s3://{request.getfixturevalue('s3').new_bucket()}/some/prefix"


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        await migrate(database)
    finally:
        await database.close()


async def _open(url: str) -> AsyncIterator[Store]:
    # A loaded machine takes seconds for a connection or a commit: that is no fault of what is tested.
    opened = Store(Database(url, timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S), read_answer)
    try:
        yield opened
    finally:
        await opened.close()
