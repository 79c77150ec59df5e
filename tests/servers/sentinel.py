"""A Valkey master with a replica and a sentinel, from the same binary."""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.servers.processes import end, free_port, wait_for
from tests.servers.valkey import ValkeyServer, binary

MASTER = "tally"
START_TIMEOUT_S = 15.0


@contextlib.contextmanager
def running_sentinel(
    folder: Path, start_valkey: Callable[..., ValkeyServer], host: str = "127.0.0.1"
) -> Iterator[tuple[int, ValkeyServer]]:
    """(the sentinel's port, the master); it fails over within some two seconds of the master's end."""
    master = start_valkey(appendonly=False)
    start_valkey(appendonly=False, replicaof=f"{host} {master.port}")
    port = free_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"bind {host}\nport {port}\ndir {folder}\nsentinel monitor {MASTER} {host} {master.port} 1\n"
        f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 2000\n"
    )
    log = folder / "sentinel.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary(), str(configuration), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
        )
    try:
        with redis.Redis(host, port, socket_timeout=1) as client:

            def knows_the_replica() -> bool:
                with contextlib.suppress(OSError, redis.RedisError):
                    return [one["master-link-status"] for one in client.sentinel_slaves(MASTER)] == ["ok"]
                return False

            wait_for(knows_the_replica, process, log, START_TIMEOUT_S)
        yield port, master
    finally:
        end(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))
