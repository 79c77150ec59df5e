"""DATABASE_URL as services and people write it."""

import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.address import AddressError, read_database_address

P = "postgresql://tally:hush@db.example.com"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # Heroku, Render, Railway, Fly.
        ("postgres://u:p@ec2-1.compute.amazonaws.com:5432/d1", {"port": [5432], "database": "d1"}),
        ("postgres://u:p@top2.nearest.of.pg.internal:5432/a?sslmode=disable", {"ssl": "disable"}),
        # Neon.
        (f"{P}/neondb?sslmode=require&channel_binding=require", {"ssl": "require", "database": "neondb"}),
        (f"{P}/n?options=endpoint%3Dep-1", {"server_settings": {"options": "endpoint=ep-1"}}),
        # Supabase.
        ("postgresql://postgres.ref:p@h:6543/postgres?pgbouncer=true", {"user": "postgres.ref"}),
        # Azure's single server has its name in the user's.
        ("postgres://user@srv:p@srv.azure.com/d", {"user": "user@srv", "host": ["srv.azure.com"]}),
        # DigitalOcean.
        ("postgresql://doadmin:p@x.ondigitalocean.com:25060/defaultdb?sslmode=require", {"port": [25060]}),
        # Cloud SQL, and other sockets.
        ("postgresql://u:p@/d?host=/cloudsql/a:b:c", {"host": ["/cloudsql/a:b:c"], "database": "d"}),
        ("postgresql:///d?host=/var/run/postgresql", {"host": ["/var/run/postgresql"], "database": "d"}),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/d", {"host": ["/var/run/postgresql"]}),
        # Other drivers' spellings.
        ("postgresql+asyncpg://u:p@h/d?ssl=require", {"ssl": "require"}),
        ("postgresql+psycopg2://u:p@h/d", {"host": ["h"]}),
        # libpq's.
        (
            "postgresql://a:1,b:2,[::1]/d?target_session_attrs=read-write",
            {"host": ["a", "b", "::1"], "port": [1, 2, 5432], "target_session_attrs": "read-write"},
        ),
        ("postgresql:///d?host=a,b&port=1,2", {"host": ["a", "b"], "port": [1, 2]}),
        ("postgresql://[fe80::1]:5433/d", {"host": ["fe80::1"], "port": [5433]}),
        (f"{P}/d?connect_timeout=7", {"timeout": 7.0}),
        (
            f"{P}/d?application_name=hook&options=-c%20search_path%3Dtally",
            {"server_settings": {"options": "-c search_path=tally", "application_name": "hook"}},
        ),
        (f"{P}?user=other&password=p%40q&dbname=e", {"user": "other", "password": "p@q", "database": "e"}),
        (f"{P}/d?sslmode=", {"host": ["db.example.com"]}),
        # Prisma's and Vercel's words, and node-postgres's.
        ("postgres://u:p@h:6543/d?pgbouncer=true&connection_limit=1&pool_timeout=20", {"port": [6543]}),
        (f"{P}/d?sslmode=require&supa=base-pooler.x&workaround=supabase-pooler.vercel", {"ssl": "require"}),
        ("postgres://u:p@h/d?sslmode=no-verify&uselibpqcompat=true", {"ssl": "require"}),
        ("postgresql://u:p@h/d?schema=public", {"database": "d"}),
        ("postgresql://a,b/d?load_balance_hosts=random", {"host": ["a", "b"]}),
        ("postgresql://u%40x:p%2Fy%25@h/d%20e", {"user": "u@x", "password": "p/y%", "database": "d e"}),
        # Nothing: the driver asks PGHOST and the rest, as libpq does.
        ("postgresql://", {}),
    ],
)
def test_f22_urls_as_services_hand_them_out(url: str, expected: dict[str, Any]) -> None:
    found = dict(read_database_address(url).arguments)
    settings = {"application_name": "tallyhook"} | expected.get("server_settings", {})
    expected = expected | {"server_settings": settings}
    assert {name: found[name] for name in expected} == expected


def test_f22_certificates_and_their_files(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("-")
    found = read_database_address(f"{P}/d?sslmode=verify-full&sslrootcert={quote(str(pem))}&gsslib=gssapi")
    assert found.arguments["ssl"] == "verify-full"
    assert f"sslrootcert={quote(str(pem), '')}" in found.arguments["dsn"]
    system = read_database_address(f"{P}/d?sslrootcert=system")
    assert (system.system_ca, system.arguments["ssl"]) == (True, "verify-full")
    assert "dsn" not in system.arguments
    with pytest.raises(AddressError, match="there is no such file"):
        read_database_address(f"{P}/d?sslrootcert=/no/such.pem")


@pytest.mark.parametrize(
    ("option", "kept"),
    [
        ("", None),
        ("pgbouncer=true", False),
        ("prepared_statements=no", False),
        ("prepared_statements=yes", True),
        ("statement_cache_size=0", False),
    ],
)
def test_f22_a_pooler_may_be_named(option: str, kept: bool | None) -> None:
    assert read_database_address(f"{P}/d?{option}").prepared_statements is kept


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:hush@h/d", "'mysql://', which is neither"),
        ("http://h/d", "'http://'"),
        ("jdbc:postgresql://h/d?password=hush", "'jdbc:postgresql://'"),
        ("/var/lib/tally.db", "is not a URL"),
        ("host=h password=hush", "is not a URL"),
        ("tally:hush@h/d", "is not a URL"),
        ("postgres://u:hush@h .example/d", "a blank where a host belongs"),
        ("postgres://u:hush@h\u200b/d", "a blank where a host belongs"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://hush.db", "names no file"),
        ("sqlite:///a.db?mode=ro", "takes none"),
        ("sqlite:///:memory:", "write sqlite:///FILE"),
        ("sqlite+aiosqlite:///%3Amemory%3A", "write sqlite:///FILE"),
        ("sqlite:////tmp", "a folder, not a file: write sqlite:////tmp/tallyhook.db"),
        ("sqlite:///data/", "write sqlite:///data/tallyhook.db"),
        ("sqlite:///a.db#hush", "# behind its host"),
        (f"{P}/d?sslmod=require", "did you mean sslmode"),
        (f"{P}/d?schema=x", "write options=-csearch_path%3DSCHEMA"),
        (f"{P}/d?statement_timeout=5", "write options=-cstatement_timeout%3DVALUE"),
        (f"{P}/d?currentSchema=x", "write options=-csearch_path%3DVALUE"),
        (f"{P}/d?max_connections=5", "'max_connections': remove it"),
        (f"{P}/d?sslaccept=strict", "sslmode=verify-full&sslrootcert=system"),
        ("postgresql://u:p@/d?unix_sock=/cloudsql/a:b:c/.s.PGSQL.5432", "write host=FOLDER"),
        (f"{P}/d?load_balance_hosts=yes", "one of disable, random"),
        (f"{P}/d#hush", "write a # of a password or a name as %23"),
        (f"{P}/d?sslmode=require#hush", "# behind its host"),
        (f"{P}?password=hush#hush", "# behind its host"),
        ("postgres://u:hush%ff@h/d", "as %25"),
        ("postgres://u:[YOUR-PASSWORD]@db.x.supabase.co/d", "put the password in its place"),
        ("postgres://u:${DB_PASSWORD}@h/d", "put the password in its place"),
        (f"{P}/d?sslmode=on", "one of disable, allow"),
        (f"{P}/d?ssl=perhaps", "one of disable, allow"),
        (f"{P}/d?connect_timeout=soon", "whole number"),
        (f"{P}/d?target_session_attrs=standby", "we write"),
        (f"{P}/d?sslnegotiation=direct", "sslmode=require or stricter"),
        (f"{P}/d?channel_binding=always", "one of disable"),
        (f"{P}/d?client_encoding=latin1", "client_encoding"),
        (f"{P}/d?sslmode", "without a value"),
        (f"{P}/d?hostaddr=1.2.3.4", "as the host"),
        (f"{P}:54x2/d", "port that is not a number"),
        (f"{P}:0/d", "port that is not a number"),
        (f"{P}:hu:sh/d", "IPv6 address without brackets"),
        ("postgresql://u:p@[::1/d", "without its ]"),
        ("postgresql:///d?host=a,b&port=1,2,3", "2 hosts and 3 ports"),
        (f"{P}/d%0Ax", "control character"),
        ("postgres://u:hush#1/d", "# where a host belongs"),
    ],
)
def test_f22_what_is_wrong_is_reported_and_no_secret(url: str, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        read_database_address(url)
    assert words in str(caught.value)
    assert ": " in str(caught.value) or "; " in str(caught.value), "a remedy"
    assert "hush" not in str(caught.value)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="%"), min_size=1))
def test_f22_a_password_may_be_written_as_it_is(password: str) -> None:
    """Where it can be told from the rest; else it is refused, and its escaped form taken."""
    found = read_database_address(f"postgres://u:{quote(password, safe='')}@h:1/d")
    assert (found.arguments["password"], found.arguments["host"]) == (password, ["h"])
    assert found.display == "postgresql://u:***@h:1/d"
    with contextlib.suppress(AddressError):
        assert read_database_address(f"postgres://u:{password}@h:1/d").arguments == found.arguments


@pytest.mark.parametrize(
    "password", ["a#b", "a/b", "a@b", "a?b", "a:b", "a&b", "a%b", "a+b", "#/@?:%", "a?b#c@d"]
)
def test_f22_each_reserved_letter_in_a_password(password: str) -> None:
    assert (
        read_database_address(f"postgres://u:{password}@h:1/d?sslmode=require").arguments["password"]
        == password
    )


def test_nothing_that_is_kept_shows_a_password() -> None:
    assert "hush" not in repr(read_database_address(f"{P}/d"))


def test_sqlite_is_a_file() -> None:
    assert read_database_address("sqlite:///a b.db").sqlite_path == "a b.db"
    assert read_database_address("sqlite+aiosqlite:////tmp/x.db").sqlite_path == "/tmp/x.db"
    assert read_database_address("sqlite:///a%23b.db").sqlite_path == "a#b.db"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sslmode=require&channel_binding=require", "channel_binding=require has no effect"),
        ("sslmode=verify-full&channel_binding=require", None),
        ("channel_binding=prefer&load_balance_hosts=random&pool_timeout=3", None),
        ("pgbouncer=true&connection_limit=1", "connection_limit has no effect"),
        ("host=a,b&load_balance_hosts=random", "load_balance_hosts=random has no effect"),
    ],
)
def test_f22_what_is_taken_and_not_done_is_reported(option: str, words: str | None) -> None:
    doubts = read_database_address(f"{P}/d?{option}").doubts
    assert [words in what for what, _ in doubts if words] == ([True] if words else [])
    assert bool(doubts) == bool(words)
