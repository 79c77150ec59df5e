"""The receiver that docs/relay.md tells to write, as a process of its own."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import aiohttp

from app.domain.notices.notice import signature_of, signing_key
from app.domain.relay.message import new_secret
from tests.servers.processes import end, free_port, wait_for

PAGE = Path(__file__).parents[3] / "docs" / "relay.md"
PORT = "port=9000"
BODY = b'{"type": "task.completed"}'


def headers(secret: str, message_id: str) -> dict[str, str]:
    at_s = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature_of((signing_key(secret),), message_id, at_s, BODY),
    }


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(folder: Path, secret: str) -> Iterator[str]:
    """Its URL; it keeps its file in `folder`."""
    code = PAGE.read_text().partition("## A receiver in Python")[2].partition("```python\n")[2]
    assert PORT in code
    port, script, log = free_port(), folder / "receiver.py", folder / "receiver.log"
    script.write_text(code.partition("```")[0].replace(PORT, f"port={port}"))
    env = os.environ | {"RESULTS_SECRET": secret}
    with log.open("wb") as output:
        command = [sys.executable, script]
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)
    try:
        wait_for(lambda: listens(port), process, log, 20)
        yield f"http://127.0.0.1:{port}/results"
    finally:
        end(process, ((signal.SIGKILL, 5.0),))


async def test_the_receiver_of_the_page_keeps_each_message_once(tmp_path: Path) -> None:
    secret = new_secret()
    with running(tmp_path, secret) as url:
        async with aiohttp.ClientSession() as client:
            for message_id, signed_with, status in (
                ("msg_1", secret, 204),
                ("msg_1", secret, 204),
                ("msg_2", secret, 204),
                ("msg_3", new_secret(), 401),
            ):
                sent = client.post(url, data=BODY, headers=headers(signed_with, message_id))
                async with sent as answer:
                    assert answer.status == status
    with closing(sqlite3.connect(tmp_path / "results.db")) as kept:
        found = kept.execute("SELECT id, body FROM messages ORDER BY id").fetchall()
    assert found == [("msg_1", BODY), ("msg_2", BODY)]
