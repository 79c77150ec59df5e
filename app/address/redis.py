"""REDIS_URL: `redis://`, `rediss://`, `unix://`, and `redis+sentinel://` as redis-sentinel-url, docket and
Prefect write it. Redis Cluster is refused: arq's transactions touch keys of several slots."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.address.split import (
    AddressError,
    Parts,
    display_url,
    existing_file,
    one_of,
    split,
    unknown_option,
    whole_number,
)
from app.quoting import in_quotes

EXAMPLE = "redis://USER:PASSWORD@HOST:6379/0, rediss:// for TLS, or unix:///FOLDER/redis.sock"
SENTINEL_EXAMPLE = "redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER/0"
PORT = 6379
SENTINEL_PORT = 26379
DATABASE_MAX = 1_000_000

_SINGLE = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
"""Scheme: is it TLS?"""
_SENTINEL = {
    "redis+sentinel": False,
    "valkey+sentinel": False,
    "redis-sentinel": False,
    "sentinel": False,
    "rediss+sentinel": True,
    "valkeys+sentinel": True,
    "rediss-sentinel": True,
}
_SOCKET = ("unix", "redis+unix", "redis+socket")
_VERIFYING = {
    "none": "none",
    "cert_none": "none",
    "optional": "optional",
    "cert_optional": "optional",
    "required": "required",
    "cert_required": "required",
}
_YES_NO = {
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "false": False,
    "no": False,
    "0": False,
    "off": False,
}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password", "service_name")
_OF_SETTINGS = (
    "socket_timeout",
    "socket_connect_timeout",
    "timeout",
    "max_connections",
    "retry_on_timeout",
    "socket_keepalive",
    "health_check_interval",
)
_WITHOUT_EFFECT = ("family",)
"""Of ioredis, as Railway has it written: here an address of either family is taken as the host has it."""
_MASTER_ELSEWHERE = ("master", "master_name", "mastername", "sentinelMasterId", "sentinel_master")
KNOWN = ("db", "username", "password", "client_name", "protocol", *_TLS, *_SENTINEL_OPTIONS, *_WITHOUT_EFFECT)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and how to connect to it."""

    display: str
    """For people: without its password."""
    arguments: Mapping[str, Any] = field(repr=False)
    """Of a connection of redis-py's: password, database, certificates, and host and port or path."""
    tls: bool = False
    sentinels: tuple[tuple[str, int], ...] = ()
    """Whom to ask for the master's address."""
    master: str = ""
    """Its name among the sentinels."""
    sentinel_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_socket(self) -> bool:
        return "path" in self.arguments


def read_redis_address(url: str) -> RedisAddress:
    """What a REDIS_URL says. Raises AddressError."""
    parts = split(url, example=EXAMPLE)
    scheme = parts.scheme
    if "cluster" in scheme:
        raise AddressError(
            f"begins with {in_quotes(scheme + '://')}: Redis Cluster is not supported; write {EXAMPLE} of a "
            "single Redis or Valkey"
        )
    if scheme not in {*_SINGLE, *_SENTINEL, *_SOCKET}:
        raise AddressError(f"begins with {in_quotes(scheme + '://')}, which is not Redis's: write {EXAMPLE}")
    for name in parts.options:
        if name in _OF_SETTINGS:
            raise AddressError(f"has the option {name}: set TALLYHOOK_REDIS_TIMEOUT_S instead, and remove it")
        if name in ("ssl", "tls"):
            raise AddressError(
                f"has the option {name}: remove it, and write rediss:// for TLS, redis:// without"
            )
        if name in _MASTER_ELSEWHERE:
            raise AddressError(f"has an unknown option {name!r}: write the master's name as service_name=")
        if name not in KNOWN:
            raise unknown_option(name, KNOWN)
    parts = Parts(
        parts.scheme,
        parts.user,
        parts.password,
        parts.hosts,
        parts.path,
        {name: value for name, value in parts.options.items() if value},
    )
    if scheme in _SOCKET:
        return _socket(parts)
    return _sentinel(parts) if scheme in _SENTINEL else _single(parts)


def _single(parts: Parts) -> RedisAddress:
    if len(parts.hosts) > 1:
        raise AddressError(
            "names several hosts: Redis Cluster is not supported, and sentinels are written "
            f"{SENTINEL_EXAMPLE}"
        )
    _only_with(parts, _SENTINEL_OPTIONS, "Sentinel: write redis+sentinel://")
    tls = _SINGLE[parts.scheme]
    host, port = parts.hosts[0] if parts.hosts else ("localhost", None)
    place = {"host": host, "port": port or PORT}
    return RedisAddress(
        _display(parts, parts.path), {**_common(parts, parts.path), **_tls(parts, tls), **place}, tls
    )


def _socket(parts: Parts) -> RedisAddress:
    path = "/".join([*(host for host, _ in parts.hosts), parts.path]) if parts.hosts else f"/{parts.path}"
    if parts.hosts or path == "/":
        raise AddressError("names no file: write unix:///FOLDER/redis.sock, with the database as ?db=0")
    _only_with(parts, (*_TLS, *_SENTINEL_OPTIONS), "a host: a socket takes none of it")
    return RedisAddress(_display(parts, parts.path), {**_common(parts, ""), "path": path})


def _sentinel(parts: Parts) -> RedisAddress:
    master, _, database = parts.path.partition("/")
    master = master or parts.options.get("service_name", "")
    if not parts.hosts or not master:
        raise AddressError(f"names no sentinel or no master: write {SENTINEL_EXAMPLE}")
    tls = _SENTINEL[parts.scheme]
    certificates = _tls(parts, tls)
    common = {
        name: parts.options[f"sentinel_{name}"]
        for name in ("username", "password")
        if f"sentinel_{name}" in parts.options
    }
    return RedisAddress(
        _display(parts, parts.path),
        {**_common(parts, database), **certificates},
        tls,
        tuple((host, port or SENTINEL_PORT) for host, port in parts.hosts),
        master,
        {**common, **certificates, **({"ssl": True} if tls else {})},
    )


def _only_with(parts: Parts, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if name in parts.options:
            raise AddressError(f"has the option {name}, which is for {what}")


def _common(parts: Parts, database: str) -> dict[str, Any]:
    options = parts.options
    common: dict[str, Any] = {
        "username": options.get("username", parts.user),
        "password": options.get("password", parts.password),
        "db": _database(options.get("db", database)),
    }
    if common["username"] not in (None, "default") and common["password"] is None:
        # Mostly a password without its colon.
        raise AddressError("has a user and no password: write redis://:PASSWORD@HOST, or USER:PASSWORD@HOST")
    if "client_name" in options:
        common["client_name"] = options["client_name"]
    if "protocol" in options:
        common["protocol"] = int(one_of("protocol", options["protocol"], ("2", "3")))
    return common


def _database(text: str) -> int:
    if not text:
        return 0
    try:
        return whole_number("database", text.strip("/"), DATABASE_MAX)
    except AddressError:
        # Not quoted: it could be a piece of a password.
        raise AddressError(
            "has a database that is not a number: write its number, as in redis://HOST/0"
        ) from None


def _tls(parts: Parts, tls: bool) -> dict[str, Any]:
    if not tls:
        _only_with(parts, _TLS, "TLS: write rediss://")
        return {}
    options = parts.options
    mode = options.get("ssl_cert_reqs", "required").lower()
    verifying = _VERIFYING[one_of("ssl_cert_reqs", mode, _VERIFYING)]
    certificates = {name: existing_file(name, options[name]) for name in _TLS_FILES if name in options}
    if "ssl_keyfile" in certificates and "ssl_certfile" not in certificates:
        raise AddressError("has ssl_keyfile without ssl_certfile: write both")
    checked = options.get("ssl_check_hostname", str(verifying == "required")).lower()
    return {
        **certificates,
        "ssl_cert_reqs": verifying,
        "ssl_check_hostname": _YES_NO[one_of("ssl_check_hostname", checked, _YES_NO)] and verifying != "none",
    }


def _display(parts: Parts, path: str) -> str:
    return f"{display_url(parts.scheme, parts.user, parts.password, parts.hosts)}/{path}"
