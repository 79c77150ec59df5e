"""A Valkey master with a replica and sentinels, from the same binary."""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.servers.processes import end, free_port, wait_for
from tests.servers.valkey import ValkeyServer, binary

MASTER = "tally"
START_TIMEOUT_S = 60.0


class Sentinel:
    """One process; most of all of them must agree that the master is gone."""

    def __init__(self, folder: Path, host: str, number: int) -> None:
        self._folder, self._host = folder, host
        self._log = folder / f"sentinel{number}.log"
        self._configuration = folder / f"sentinel{number}.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self, master: ValkeyServer, quorum: int) -> None:
        """Begin to watch; `until_ready` waits."""
        self._configuration.write_text(
            f"bind {self._host}\nport {self.port}\ndir {self._folder}\nsentinel announce-ip {self._host}\n"
            f"sentinel monitor {MASTER} {self._host} {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 2000\n"
        )
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [binary(), str(self._configuration), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )

    def until_ready(self, others: int) -> None:
        """Wait until it knows the replica and so many other sentinels."""
        assert self._process is not None, "not started"
        with redis.Redis(self._host, self.port, socket_timeout=20) as client:

            def knows_all() -> bool:
                with contextlib.suppress(OSError, redis.RedisError):
                    replicas = [one["master-link-status"] for one in client.sentinel_slaves(MASTER)]
                    seen = [one["flags"] for one in client.sentinel_sentinels(MASTER)]
                    return replicas == ["ok"] and seen == ["sentinel"] * others
                return False

            wait_for(knows_all, self._process, self._log, START_TIMEOUT_S)

    def end(self) -> None:
        """For good."""
        process, self._process = self._process, None
        if process is not None:
            end(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


@contextlib.contextmanager
def running_sentinels(
    folder: Path, start_valkey: Callable[..., ValkeyServer], host: str = "127.0.0.1", *, count: int = 3
) -> Iterator[tuple[list[Sentinel], ValkeyServer]]:
    """(sentinels, the master); they fail over within some two seconds of the master's end."""
    master = start_valkey(appendonly=False)
    announced = {"replica-announce-ip": host}
    start_valkey(appendonly=False, replicaof=f"{host} {master.port}", **announced)
    sentinels = [Sentinel(folder, host, number) for number in range(1, count + 1)]
    try:
        for sentinel in sentinels:
            sentinel.start(master, count // 2 + 1)
        for sentinel in sentinels:
            sentinel.until_ready(count - 1)
        yield sentinels, master
    finally:
        for sentinel in sentinels:
            sentinel.end()


@contextlib.contextmanager
def running_sentinel(
    folder: Path, start_valkey: Callable[..., ValkeyServer], host: str = "127.0.0.1"
) -> Iterator[tuple[int, ValkeyServer]]:
    """(the port of a single one, the master)."""
    with running_sentinels(folder, start_valkey, host, count=1) as ((sentinel,), master):
        yield sentinel.port, master
