"""deploy/pgbouncer/pgbouncer.ini, read by a real PgBouncer: only who has the password comes through."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from tests.deploy.tools import DEPLOY, debian_tool
from tests.servers.postgres import UNPRIVILEGED_USER, PostgresServer
from tests.servers.processes import end, free_port, wait_for

pytestmark = pytest.mark.deploy


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the pooler, which is nobody's, may read."""
    made = Path(tempfile.mkdtemp(prefix="tallyhook-pgbouncer-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def started(binary: str, file: Path, log: Path) -> "subprocess.Popen[bytes]":
    user = ["-u", UNPRIVILEGED_USER] if os.geteuid() == 0 else []
    with log.open("wb") as output:
        return subprocess.Popen([binary, *user, str(file)], stdout=output, stderr=output)


async def test_the_file_is_read_and_asks_for_the_password(folder: Path, postgres: PostgresServer) -> None:
    binary, port, server = debian_tool("pgbouncer"), free_port(), sa.make_url(postgres.admin_url)
    text = (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text()
    for before, after in {
        "host=postgres port=5432 dbname=tallyhook": f"host={server.host} port={server.port} dbname=postgres",
        "listen_addr = 0.0.0.0": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
        "/etc/pgbouncer/userlist.txt": f"{folder}/userlist.txt",
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "userlist.txt").write_text('"postgres" "right"\n')
    log = folder / "pgbouncer.log"
    process = started(binary, folder / "pgbouncer.ini", log)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, process, log, 15)
        place = f"127.0.0.1:{port}/tallyhook"
        connection = await asyncpg.connect(f"postgresql://postgres:right@{place}", statement_cache_size=0)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(f"postgresql://postgres:wrong@{place}", statement_cache_size=0)
    finally:
        end(process, ((signal.SIGINT, 5.0), (signal.SIGKILL, 5.0)))
