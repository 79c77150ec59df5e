"""DATABASE_URL against a real PostgreSQL: what libpq takes works, what is wrong is told with its remedy."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.doctor.database import check_database
from app.config import load_settings
from app.store import Database
from tests.servers.postgres import PostgresServer, database_name
from tests.servers.tls import make_authority, tls_relay


async def asked(url: str, question: str = "SELECT 1") -> object:
    """What the database answers by way of SQLAlchemy."""
    database = Database(url)
    try:
        async with database.engine.connect() as connection:
            return (await connection.exec_driver_sql(question)).scalar()
    finally:
        await database.close()


def placed(url: str, host: str, port: int | None = None) -> str:
    """The URL with another host in it, as it stands."""
    parts = sa.make_url(url)
    return f"postgresql://{parts.username}@{host}:{port or parts.port}/{parts.database}"


async def test_f22_options_reach_the_server(postgres_url: str) -> None:
    url = f"{postgres_url}?options=-c%20search_path%3Dtally%20-c%20statement_timeout%3D7777&connect_timeout=5"
    assert await asked(url, "SHOW search_path") == "tally"
    assert await asked(url, "SHOW statement_timeout") == "7777ms"
    assert await asked(url, "SHOW application_name") == "tallyhook"
    assert await asked(f"{url}&application_name=web", "SHOW application_name") == "web"
    assert await asked(f"{postgres_url}?sslmode=prefer&channel_binding=require") == 1
    assert await asked(postgres_url.replace("postgresql://", "postgres://")) == 1


@pytest.mark.parametrize(
    ("path", "words", "remedy"),
    [
        ("nowhere/x.db", "there is no ", "mkdir -p "),
        ("full", "database or disk is full", "make room on the disk"),
        ("text", "file is not a database", "name another file"),
    ],
)
def test_f22_a_file_of_sqlite_that_cannot_be_used(tmp_path: Path, path: str, words: str, remedy: str) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "text").write_text("root:x:0:0")
    settings = load_settings(_env_file=None, DATABASE_URL=f"sqlite:///{tmp_path}/{path}")
    check = asyncio.run(check_database(settings))
    assert (check.state, words in check.detail, remedy in check.remedy) == ("fault", True, True), check


async def test_f22_of_several_hosts_one_that_answers_and_writes_is_taken(postgres_url: str) -> None:
    port = sa.make_url(postgres_url).port
    several = placed(postgres_url, f"127.0.0.1:1,127.0.0.1:{port},[::1]", 1)
    assert await asked(several) == 1
    assert await asked(f"{several}?target_session_attrs=read-write") == 1


async def test_f22_tls_is_checked_as_libpq_checks_it(postgres_url: str, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    ca = quote(str(authority.ca_file))
    async with tls_relay(sa.make_url(postgres_url).port or 0, authority.server, asked=True) as port:
        named, numbered = placed(postgres_url, "localhost", port), placed(postgres_url, "127.0.0.1", port)
        for good in (
            f"{named}?sslmode=verify-full&sslrootcert={ca}",
            f"{numbered}?sslmode=verify-ca&sslrootcert={ca}",
            f"{numbered}?sslmode=require",
            f"{numbered}?sslmode=prefer",
            f"{numbered}?ssl=true",
        ):
            assert await asked(good) == 1, good
        for bad in (f"{numbered}?sslmode=verify-full&sslrootcert={ca}", f"{named}?sslrootcert=system"):
            check = await check_database(load_settings(_env_file=None, DATABASE_URL=bad))
            assert (check.state, "sslrootcert=FILE" in check.remedy) == ("fault", True), check


@pytest.mark.parametrize(
    ("change", "words", "remedy"),
    [
        (("postgres@", "nobody_here:hush@"), "nobody_here", "check the user in DATABASE_URL"),
        (("{database}", "no_such_database"), "no_such_database", "check the database's name in DATABASE_URL"),
        (("{database}", "{database}?sslmode=require"), "rejected SSL", "write sslmode=disable"),
        (("127.0.0.1", "no-such-host.invalid"), "no-such-host.invalid", "check the host's name"),
        (("{database}", "{database}?options=-cno_such%3D1"), "no_such", "check the options"),
        (("{database}", "{database}?options=-cstatement_timeout%3Dsoon"), "soon", "check the options"),
        (("{port}", "1"), "127.0.0.1:1/", "check DATABASE_URL"),
    ],
)
def test_f22_what_is_wrong_is_reported_with_its_remedy(
    postgres: PostgresServer, postgres_url: str, change: tuple[str, str], words: str, remedy: str
) -> None:
    names = {"database": database_name(postgres_url), "port": str(sa.make_url(postgres_url).port)}
    url = postgres_url.replace(change[0].format(**names), change[1].format(**names))
    check = asyncio.run(check_database(load_settings(_env_file=None, DATABASE_URL=url)))
    assert check.state == "fault"
    assert words in check.detail, check
    assert remedy in check.remedy, check
    assert "hush" not in check.detail + check.remedy


async def test_one_who_asks_now_and_then_meets_the_same_session(postgres_url: str) -> None:
    """It has planned what is asked, and knows its partitions; by turns each of five learns all of it."""
    database = Database(postgres_url)

    async def session(connection: AsyncConnection) -> int:
        return int(await connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)

    async with database.engine.connect() as one, database.engine.connect() as other:
        assert await session(one) != await session(other)
    assert len({await database.read(session) for _ in range(4)}) == 1
    await database.close()
