"""DATABASE_URL: a URL of SQLite, or of PostgreSQL as libpq reads it and as managed services hand it out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from app.address.split import (
    AddressError,
    Parts,
    display_url,
    existing_file,
    host_and_port,
    is_folder,
    one_of,
    refuse_fragment,
    split,
    unknown_option,
    unquoted,
    whole_number,
)
from app.quoting import in_quotes

EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE or sqlite:///FILE"
APPLICATION_NAME = "tallyhook"
PORT = 5432
CONNECT_TIMEOUT_MAX_S = 3_600
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
UNCHECKED = "no-verify"
"""Of node-postgres: TLS that proves nothing, which is what `require` is to libpq."""
SESSIONS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
SYSTEM_CA = "system"

_SCHEME = re.compile(r"(postgres|postgresql|sqlite)(\+[a-z0-9]+)?")
_JUST_THE_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_PASSED = ("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib")
"""To the driver, which takes them by its own URL only."""
_ABOUT_PLACE = ("host", "port", "dbname", "user", "password", "passfile", "service")
_OURS = ("prepared_statements", "pgbouncer")
_READ = (
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "options",
    "target_session_attrs",
    "sslmode",
    "ssl",
    "sslnegotiation",
    "channel_binding",
    "client_encoding",
    "load_balance_hosts",
    "schema",
)
_WITHOUT_EFFECT = (
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "gssdelegation",
    "sslcompression",
    "sslsni",
    "sslcertmode",
    "statement_cache_size",
    "prepared_statement_cache_size",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "max_idle_connection_lifetime",
    "single_use_connections",
    "uselibpqcompat",
    "supa",
    "workaround",
)
"""Taken, because services and other drivers' users write them. The first five are for libpq's own sockets;
`connection_limit` to `single_use_connections` are Prisma's, `uselibpqcompat` is node-postgres's and asks for
what we do, `supa` and `workaround` stand in what Supabase and Vercel hand out."""
_OF_A_SESSION = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
    "timezone",
    "TimeZone",
    "search_path",
    "currentSchema",
    "default_transaction_isolation",
    "work_mem",
)
"""The server's own settings, which URLs of other drivers set by their names."""
KNOWN = (*_ABOUT_PLACE, *_READ, *_FILES, *_PASSED, *_OURS, *_WITHOUT_EFFECT)
_YES_NO = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where a database is and how to connect to it."""

    display: str
    """For people: without its password."""
    sqlite_path: str | None = None
    """None: PostgreSQL."""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of asyncpg.connect."""
    system_ca: bool = False
    """Certificates are checked against those of the system (sslrootcert=system)."""
    prepared_statements: bool | None = None
    """None: unless a pooler stands between."""
    doubts: tuple[tuple[str, str], ...] = ()
    """What was taken, and is not done: (what, remedy)."""


def read_database_address(url: str) -> DatabaseAddress:
    """What a DATABASE_URL says. Raises AddressError."""
    head = _JUST_THE_SCHEME.match(url)
    if head is None:
        raise AddressError(f"is not a URL: write {EXAMPLE}")
    scheme = _SCHEME.fullmatch(head.group(1).lower())
    if scheme is None:
        raise AddressError(
            f"begins with {in_quotes(head.group())}, which is neither PostgreSQL nor SQLite: write {EXAMPLE}"
        )
    if scheme.group(1) == "sqlite":
        return _sqlite(url[head.end() :])
    return _postgresql(split(url, example="postgresql://USER:PASSWORD@HOST:5432/DATABASE"))


def _sqlite(rest: str) -> DatabaseAddress:
    refuse_fragment(rest)
    path, _, query = rest.partition("?")
    if query:
        raise AddressError("has options after the file's name, which SQLite here takes none of: remove them")
    path = path.removeprefix("/") if path.startswith("/") else path
    if not rest.startswith("/") or not path:
        raise AddressError("names no file: write sqlite:///FILE, or sqlite:////FOLDER/FILE from the root on")
    path = unquoted(path)
    if path == ":memory:":
        raise AddressError(
            "names a database in memory, which each process would have for itself: write sqlite:///FILE, or "
            "unset it for a file of our own"
        )
    if path.endswith("/") or is_folder(path):
        inside = in_quotes(path.rstrip("/"), 200)[1:-1]
        raise AddressError(f"names a folder, not a file: write sqlite:///{inside}/tallyhook.db")
    return DatabaseAddress(f"sqlite:///{path}", sqlite_path=path)


def _postgresql(parts: Parts) -> DatabaseAddress:
    options = dict(parts.options)
    for name in options:
        if name not in KNOWN:
            raise _unknown(name)
    options = {name: value for name, value in options.items() if value}
    hosts = _hosts(parts, options)
    user, password = options.get("user", parts.user), options.get("password", parts.password)
    database = options.get("dbname") or parts.path or None
    passed = {name: options[name] for name in (*_PASSED, "passfile", "service") if name in options}
    passed |= {
        name: existing_file(name, options[name])
        for name in _FILES
        if name in options and options[name] != SYSTEM_CA
    }
    mode = _ssl_mode(options)
    arguments: dict[str, Any] = {
        # The driver takes these by its own URL only.
        "dsn": f"postgresql:///?{urlencode(passed)}" if passed else None,
        "host": [host for host, _ in hosts] or None,
        "port": [port or PORT for _, port in hosts] if any(port for _, port in hosts) else None,
        "user": user,
        "password": password,
        "database": database,
        "ssl": mode,
        "server_settings": _server_settings(options),
        "target_session_attrs": _session(options),
        "direct_tls": _direct_tls(options, mode),
    }
    timeout_s = whole_number("connect_timeout", options.get("connect_timeout", "0"), CONNECT_TIMEOUT_MAX_S)
    if timeout_s:
        arguments["timeout"] = float(timeout_s)
    _agreeable(options)
    return DatabaseAddress(
        f"{display_url('postgresql', user, password, hosts)}/{database or ''}",
        arguments={name: value for name, value in arguments.items() if value is not None},
        system_ca=options.get("sslrootcert") == SYSTEM_CA,
        prepared_statements=_prepared_statements(options),
        doubts=tuple(_doubts(options, mode, len(hosts))),
    )


def _unknown(name: str) -> AddressError:
    if name in _OF_A_SESSION:
        setting = "search_path" if name == "currentSchema" else name
        return AddressError(
            f"has an unknown option {name!r}: write options=-c{setting}%3DVALUE, or set it for the role"
        )
    if name == "hostaddr":
        return AddressError("has an unknown option 'hostaddr': write the address as the host")
    if name == "unix_sock":
        return AddressError("has an unknown option 'unix_sock': write host=FOLDER, the folder of the socket")
    if name == "sslaccept":
        return AddressError(
            "has an unknown option 'sslaccept': write sslmode=verify-full&sslrootcert=system for strict, or "
            "sslmode=require"
        )
    return unknown_option(name, KNOWN)


def _doubts(options: Mapping[str, str], mode: str | None, hosts: int) -> Iterator[tuple[str, str]]:
    """What somebody may rely on, and the driver cannot do."""
    if options.get("channel_binding") == "require" and mode != "verify-full":
        yield (
            "channel_binding=require has no effect: nothing proves that the server is the right one",
            "write sslmode=verify-full&sslrootcert=system, which proves as much",
        )
    if "connection_limit" in options:
        yield (
            "connection_limit has no effect: each process keeps up to ten connections",
            "remove it, and let the server or a pooler take ten for each process",
        )
    if options.get("load_balance_hosts") == "random" and hosts > 1:
        yield "load_balance_hosts=random has no effect: hosts are tried in their order", "remove it"


def _hosts(parts: Parts, options: Mapping[str, str]) -> tuple[tuple[str, int | None], ...]:
    """Hosts of the URL, or of its options, where a socket's folder stands."""
    hosts = parts.hosts
    if "host" in options:
        hosts = tuple(
            # A folder may have colons in it, as those of Cloud SQL do.
            (text, None) if text.startswith(("/", "@")) else host_and_port(text, example="host=HOST:5432")
            for text in options["host"].split(",")
            if text
        )
    if "port" not in options:
        return hosts
    ports = [whole_number("port", text, 65_535) for text in options["port"].split(",")]
    if len(ports) not in (1, len(hosts)):
        raise AddressError(
            f"has {len(hosts)} hosts and {len(ports)} ports: write one port, or one for each host"
        )
    return tuple((host, ports[n % len(ports)]) for n, (host, _) in enumerate(hosts))


def _ssl_mode(options: Mapping[str, str]) -> str | None:
    mode = options.get("sslmode")
    if mode is None and "ssl" in options:
        # As SQLAlchemy's users and JDBC's write it.
        value = options["ssl"].lower()
        one_of("ssl", value, (*SSL_MODES, UNCHECKED, *_YES_NO))
        mode = value if value not in _YES_NO else "require" if _YES_NO[value] else "disable"
    if mode == UNCHECKED:
        mode = "require"
    if options.get("sslrootcert") == SYSTEM_CA:
        # As libpq: the system's certificates prove nothing about a host whose name is not checked.
        if mode not in (None, "verify-full"):
            raise AddressError(
                f"has sslrootcert=system with sslmode={in_quotes(mode or '')}: write verify-full"
            )
        return "verify-full"
    return mode if mode is None else one_of("sslmode", mode, SSL_MODES)


def _session(options: Mapping[str, str]) -> str | None:
    wanted = options.get("target_session_attrs")
    if wanted is None:
        return None
    one_of("target_session_attrs", wanted, SESSIONS)
    if wanted in ("read-only", "standby", "prefer-standby"):
        raise AddressError(f"has target_session_attrs={wanted}, but we write: write read-write or primary")
    return wanted


def _direct_tls(options: Mapping[str, str], mode: str | None) -> bool | None:
    if "sslnegotiation" not in options:
        return None
    direct = one_of("sslnegotiation", options["sslnegotiation"], ("postgres", "direct")) == "direct"
    if direct and mode not in ("require", "verify-ca", "verify-full"):
        raise AddressError("has sslnegotiation=direct, which needs TLS: write sslmode=require or stricter")
    return direct


def _server_settings(options: Mapping[str, str]) -> dict[str, str]:
    name = options.get("application_name") or options.get("fallback_application_name") or APPLICATION_NAME
    settings = {"application_name": name}
    if "options" in options:
        # A + is a blank here, as most programs that make URLs write it.
        settings["options"] = options["options"].replace("+", " ")
    return settings


def _agreeable(options: Mapping[str, str]) -> None:
    """What is taken without effect shall at least be right."""
    one_of("channel_binding", options.get("channel_binding", "prefer"), ("disable", "prefer", "require"))
    encoding = options.get("client_encoding", "utf8")
    one_of("client_encoding", encoding.lower().replace("-", ""), ("utf8", "auto"))
    one_of("load_balance_hosts", options.get("load_balance_hosts", "disable"), ("disable", "random"))
    if options.get("schema", "public") != "public":
        # What is not done may not be passed over: the tables would be made elsewhere.
        raise AddressError(
            "has a schema of its own: write options=-csearch_path%3DSCHEMA in place of schema="
        )


def _prepared_statements(options: Mapping[str, str]) -> bool | None:
    for name in ("statement_cache_size", "prepared_statement_cache_size"):
        if options.get(name) == "0":
            return False
    if "pgbouncer" in options:
        return not _yes_or_no("pgbouncer", options)
    return _yes_or_no("prepared_statements", options) if "prepared_statements" in options else None


def _yes_or_no(name: str, options: Mapping[str, str]) -> bool:
    return _YES_NO[one_of(name, options[name].lower(), _YES_NO)]
