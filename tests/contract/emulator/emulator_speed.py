"""How many whole task lifecycles the emulator does per second of its own CPU time. Run it by hand:

python tests/contract/emulator/emulator_speed.py [TASKS]

Create, schedule, answer, sign, deliver; over real HTTP, in separate processes for the emulator, the
receiver and the driver, which are written on bare sockets so that they cost little. Wall-clock rates
depend on what else the machine does; CPU seconds of the emulator's process alone are what a core can
carry.
"""

import asyncio
import json
import multiprocessing
import sys
import time
from pathlib import Path

import psutil
import uvloop

ROOT = Path(__file__).parents[3]
CONNECTIONS = 16
TYPES = ("CHATGPT", "GEMINI", "COPILOT", "PERPLEXITY", "AIMODE", "GOOGLE", "GOOGLE_NEWS", "GROK")


class Receiver(asyncio.Protocol):
    """Counts POSTs and answers 200; understands nothing but Content-Length."""

    seen = 0
    bytes_seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower().split(b"content-length:")[1]
            length = int(head.split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            del self.buffer[: end + 4 + length]
            Receiver.seen += 1
            Receiver.bytes_seen += length
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")  # type: ignore[attr-defined]


def receive(tasks: int, reports: multiprocessing.Queue[float]) -> None:
    """Tell the port, then, when all have arrived, the mean size."""

    async def listen() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        reports.put(server.sockets[0].getsockname()[1])
        while Receiver.seen < tasks:  # noqa: ASYNC110 - an event would cost the measured loop more
            await asyncio.sleep(0.02)
        reports.put(Receiver.bytes_seen / Receiver.seen)

    uvloop.run(listen())


def request(number: int, key: str, hook: int) -> bytes:
    task_type = TYPES[number % len(TYPES)]
    prompt = f"What is the best running shoe for beginners, number {number}?"
    payload: dict[str, object] = {"country": "DE"}
    if task_type.startswith("GOOGLE"):
        payload["query"] = prompt
    else:
        payload |= {"prompt": prompt, "include": {"markdown": True}}
    body = json.dumps(
        {
            "taskType": task_type,
            "payload": payload,
            "idempotencyKey": f"speed-{number}",
            "webhook": {"url": f"http://127.0.0.1:{hook}/"},
        }
    ).encode()
    head = f"POST /v1/async/task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def drive(port: int, key: str, hook: int, numbers: range) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        writer.write(request(number, key, hook))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()


async def measure(tasks: int) -> None:
    reports: multiprocessing.Queue[float] = multiprocessing.Queue()
    receiver = multiprocessing.Process(target=receive, args=(tasks, reports))
    receiver.start()
    hook = int(reports.get())
    options = ["--port", "0", "--json", "--time-scale", "300", "--rate-limit", "0", "--concurrency", "100000"]
    emulator = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.emulator", *options, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert emulator.stdout is not None
    ready = json.loads(await emulator.stdout.readline())
    process, port = psutil.Process(emulator.pid), int(ready["url"].rsplit(":", 1)[1])
    before, started = process.cpu_times(), time.monotonic()
    share = -(-tasks // CONNECTIONS)
    parts = [range(start, min(start + share, tasks)) for start in range(0, tasks, share)]
    await asyncio.gather(*(drive(port, ready["key"], hook, part) for part in parts))
    size = await asyncio.get_running_loop().run_in_executor(None, reports.get)
    wall_s, after = time.monotonic() - started, process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    sys.stdout.write(
        f"{tasks} lifecycles, mean delivery {size / 1000:.1f} KB: {tasks / cpu_s:.0f}/s per CPU second "
        f"({cpu_s / tasks * 1e6:.0f} us each), {tasks / wall_s:.0f}/s on the wall, "
        f"{process.memory_info().rss / 1e6:.0f} MB resident\n"
    )
    emulator.terminate()
    await emulator.wait()
    receiver.join()


if __name__ == "__main__":
    uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
