"""What the doctor looks at in Redis."""

import contextlib
import uuid
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.address import read_redis_address
from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks
from app.config import Settings
from app.local.embedded import is_valkey_used, running_valkey
from app.queue import open_pool

KEPT_MS = 1000
"""For how long what is tried stays, should we not come to take it away."""
FULL = 0.9
"""Of maxmemory: then it is nearly full."""
_SECTIONS = ("memory", "persistence", "server", "replication")
_SCRIPT = "redis.call('SET', KEYS[1], '1', 'PX', 1000) return redis.call('TIME')"
_NO_CLUSTER = "give REDIS_URL a single server, or one behind Sentinel; a cluster is not supported"
_NO_REPLICA = "give REDIS_URL the primary, or Sentinels, which know who that is"
_MORE_MEMORY = (
    "raise maxmemory, or remove what else is kept there; results are received and settled meanwhile"
)
_REFUSALS = (
    ("OOM", _MORE_MEMORY),
    ("maxmemory", _MORE_MEMORY),
    ("permissions", "give the user of REDIS_URL what is missing: ACL SETUSER NAME +@all ~*"),
    ("No permission", "give the user of REDIS_URL what is missing: ACL SETUSER NAME +@all ~*"),
    ("EXEC without MULTI", "give the user of REDIS_URL the command MULTI: ACL SETUSER NAME +multi"),
    ("CLUSTER", _NO_CLUSTER),
    ("MOVED", _NO_CLUSTER),
    ("hash slot", _NO_CLUSTER),
    ("CROSSSLOT", _NO_CLUSTER),
    ("read only", _NO_REPLICA),
    ("READONLY", _NO_REPLICA),
    ("MISCONF", "it cannot write its own files: look at its disk"),
    ("unknown command", "this service lacks what arq needs: use a Redis 6.2 or Valkey that has scripts"),
)
"""What is said about each, by a piece of the server's words."""


async def check_redis(settings: Settings, clocks: Clocks | None = None) -> list[Check]:
    """Reachable, keeping its data over a restart, and never dropping keys by itself."""
    url = running_valkey(settings)
    if url is None and is_valkey_used(settings):
        detail = "the embedded Valkey does not answer, though web or worker runs; they try to start it again"
        remedy = f"ask again in some seconds; then look at {settings.data_dir / 'valkey' / 'valkey.log'}"
        return [Check("redis", "fault", detail, remedy)]
    if url is None:
        detail = "embedded Valkey, not running, nor is web or worker, which start it"
        return [Check("redis", "ok", detail)]
    try:
        # Also a wrong URL raises here.
        pool = open_pool(url, timeout_s=settings.redis_timeout_s)
        try:
            await pool.ping()
            sections = {section: await _info(pool, section) for section in _SECTIONS}
            refused = await _refused(pool)
            if clocks is not None:
                await _compare(pool, clocks)
        finally:
            await pool.aclose(close_connection_pool=True)
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        detail = (
            f"cannot reach Redis at {read_redis_address(url).display}: {str(error) or 'no answer in time'}"
        )
        return [Check("redis", "fault", detail, _redis_remedy(str(error)))]
    kind = "REDIS_URL" if settings.redis_url else "embedded Valkey"
    memory = sections["memory"]
    found = [
        fault for fault in (_other_kind(kind, sections), refused, _memory_check(memory)) if fault is not None
    ]
    return [
        *(found[:1] or [Check("redis", "ok", f"{kind} answers, and takes what a worker writes")]),
        _persistence(sections["persistence"]),
        _eviction(memory),
    ]


async def _compare(pool: Redis, clocks: Clocks) -> None:
    asked = clocks.ask()
    with contextlib.suppress(ResponseError):  # its user may not ask
        seconds, micros = await pool.time()
        clocks.note("redis", seconds * 1000 + micros / 1000, asked)


async def _refused(pool: Redis) -> Check | None:
    """Try a script, and what arq and we write, on keys that live for a second; None: it takes all of it."""
    # As arq's and ours begin, so that rules on names apply. Two of them: a cluster keeps them apart.
    job, mark = f"arq:job:{uuid.uuid4().hex}", f"tallyhook:{uuid.uuid4().hex}"
    try:
        # With the keys of the shared rate limit, which it writes by a script.
        await pool.execute_command("EVAL", _SCRIPT, 1, mark)  # type: ignore[no-untyped-call]
        trial = pool.pipeline(transaction=True)
        for command in (
            ("PSETEX", job, KEPT_MS, ""),
            ("GET", job),
            ("EXISTS", job),
            ("INCR", mark),
            ("PEXPIRE", mark, KEPT_MS),
            ("DEL", job, mark),
            ("ZADD", mark, 0, "0"),
            ("ZSCORE", mark, "0"),
            ("ZRANGEBYSCORE", mark, "-inf", "+inf"),
            ("ZREM", mark, "0"),
            ("DEL", mark),
        ):
            trial.execute_command(*command)
        await trial.execute()
    except RedisError as error:
        refusal = str(error)
        remedy = next((remedy for sign, remedy in _REFUSALS if sign in refusal), _redis_remedy(refusal))
        # Redis's own words name a user and a command, never a password.
        return Check("redis", "fault", f"it answers and refuses what a worker does: {refusal}", remedy)
    return None


def _other_kind(kind: str, sections: dict[str, dict[str, Any] | None]) -> Check | None:
    """A server that answers, and that no worker can work with."""
    server, replication = sections["server"] or {}, sections["replication"] or {}
    if server.get("redis_mode") == "cluster" or server.get("server_mode") == "cluster":
        return Check("redis", "fault", f"{kind} is a cluster, which keeps a job's keys apart", _NO_CLUSTER)
    if replication.get("role") == "slave":
        master = f"{replication.get('master_host', '?')}:{replication.get('master_port', '?')}"
        return Check("redis", "fault", f"{kind} is a replica of {master}", _NO_REPLICA)
    return None


def _memory_check(memory: dict[str, Any] | None) -> Check | None:
    """A server that is nearly full."""
    used, most = (float((memory or {}).get(name) or 0) for name in ("used_memory", "maxmemory"))
    if not most or used < FULL * most:
        return None
    detail = f"{used / 2**20:.0f} of {most / 2**20:.0f} MiB are used"
    return Check("redis", "warning", detail, _MORE_MEMORY)


async def _info(pool: Redis, section: str) -> dict[str, Any] | None:
    """None: the server does not tell, as a managed one whose user may not ask."""
    try:
        return dict(await pool.info(section))
    except ResponseError:
        return None


def _redis_remedy(refusal: str) -> str:
    for sign, remedy in (
        ("WRONGPASS", "check user and password in REDIS_URL"),
        ("invalid username-password pair", "check user and password in REDIS_URL"),
        (
            "uthentication required",
            "write the password into REDIS_URL: redis://:PASSWORD@HOST, or "
            "redis://USER:PASSWORD@HOST for an ACL user",
        ),
        (
            "CERTIFICATE_VERIFY",
            "write ssl_ca_certs=FILE behind REDIS_URL's ?, or ssl_cert_reqs=none where "
            "the service signs its certificate itself",
        ),
        ("No master found", "check the master's name in REDIS_URL, and that a sentinel answers"),
        ("DB index is out of range", "write a number of a database that the server has: redis://HOST/0"),
        ("Timeout connecting", "check host and port in REDIS_URL; for rediss:// the server must speak TLS"),
        (
            "Connection closed by server",
            "check that this is a Redis; one that speaks TLS is written rediss://",
        ),
    ):
        if sign in refusal:
            return remedy
    return "check REDIS_URL, and that the server runs; results are still received and settled meanwhile"


def _persistence(info: dict[str, Any] | None) -> Check:
    name = "redis persistence"
    if info is None:
        return Check(name, "warning", "unknown: INFO is refused", "look at the service's own settings")
    if info.get("aof_enabled"):
        return Check(name, "ok", "append-only file")
    remedy = "set appendonly yes; without it nothing is lost for good, but it waits for the sweep"
    return Check(name, "warning", "no append-only file: a crash loses jobs", remedy)


def _eviction(info: dict[str, Any] | None) -> Check:
    name, remedy = "redis eviction", "set maxmemory-policy noeviction, or use a Redis of Tallyhook's own"
    policy = None if info is None else info.get("maxmemory_policy")
    if info is None or policy is None:
        remedy = "look at the service's own settings: maxmemory-policy must be noeviction"
        return Check(name, "warning", "unknown: INFO is refused, or does not tell the policy", remedy)
    if policy == "noeviction":
        return Check(name, "ok", "noeviction")
    if info.get("maxmemory"):
        return Check(name, "fault", f"{policy} drops jobs when memory is short; workers refuse it", remedy)
    return Check(name, "warning", f"{policy} would drop jobs, were maxmemory set", remedy)
