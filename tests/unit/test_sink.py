"""Logs end in something that may break, fill up or stand still: whoever logs neither sees it nor waits."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from app import log_sink as sinks
from app.log import configure
from app.log_sink import WAITING_BYTES_MAX, Sink

LINE = "x" * 999 + "\n"


@pytest.fixture
def standard(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Sink]:
    """A sink on a descriptor that stands for a standard one."""

    def opened(descriptor: int) -> Sink:
        monkeypatch.setattr(sinks, "STANDARD", {descriptor})
        # Not closed with the stream: a thread may still wait to write to it.
        stream = os.fdopen(descriptor, "w", closefd=False)
        return Sink(stream, lost_line=lambda count: f"lost {count}\n")

    return opened


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe and the descriptor of its writer; nobody reads."""
    path = tmp_path / "err"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.close(reader)
    yield path, writer
    os.close(writer)


def read_all(descriptor: int, until: Callable[[bytes], bool]) -> bytes:
    os.set_blocking(descriptor, False)
    got, deadline = b"", time.monotonic() + 20
    while not until(got):
        assert time.monotonic() < deadline, got[-200:]
        try:
            got += os.read(descriptor, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
    return got


def test_f14_a_closed_pipe_costs_lines_and_says_how_many(
    standard: Callable[[int], Sink], fifo: tuple[Path, int]
) -> None:
    path, writer = fifo
    sink = standard(writer)
    for _ in range(3):
        sink.write("gone\n")
    assert sink.drain(60)
    assert sink.lost == 3
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        sink.write("back\n")
        assert sink.drain(60)
        assert os.read(reader, 1_000) == b"lost 3\nback\n"
        assert sink.lost == 0
    finally:
        os.close(reader)


@pytest.mark.parametrize("blocking", [True, False])
def test_f14_a_reader_that_stands_still_holds_nobody_up(
    standard: Callable[[int], Sink], blocking: bool
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    sink = standard(writer)
    written = 3 * WAITING_BYTES_MAX // len(LINE)
    for _ in range(written):
        sink.write(LINE)  # nobody waits: the reader would never come
    assert not sink.drain(0.05)
    # It reads again: what waited comes whole, and somewhere among it how many lines did not.
    got = read_all(reader, lambda got: sink.drain(0) and not got.endswith(b"x"))
    sink.write("back\n")
    lines = (got + read_all(reader, lambda got: b"back\n" in got)).decode().splitlines()
    assert {line for line in lines if not line.startswith("lost ")} == {LINE.strip(), "back"}
    lost = sum(int(line.removeprefix("lost ")) for line in lines if line.startswith("lost "))
    assert lost > written // 2
    assert lines.count(LINE.strip()) + lost == written
    os.close(reader)
    os.close(writer)


def test_f14_a_full_device_and_a_closed_stream_cost_lines(tmp_path: Path) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - its end fails too
    sink = Sink(full)
    sink.write("x\n")
    assert sink.lost == 1
    with pytest.raises(OSError, match="No space"):
        full.close()
    closed = (tmp_path / "log").open("w")
    closed.close()
    sink = Sink(closed)
    sink.write("x\n")
    assert sink.lost == 1
    Sink(None).write("there is no stream\n")


def test_f14_half_a_line_is_ended_before_the_next(
    standard: Callable[[int], Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    sink = standard(descriptor)
    write, room = os.write, [4]

    def little(to: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = write(to, data[: room[0]])
        room[0] -= count
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", little)
        sink.write("cut in two\n")
        assert sink.drain(60)
    sink.write("whole\n")
    assert sink.drain(60)
    assert (tmp_path / "log").read_text() == "cut \nlost 1\nwhole\n"
    os.close(descriptor)


def test_f14_a_fork_has_a_writer_of_its_own(standard: Callable[[int], Sink]) -> None:
    reader, writer = os.pipe()
    sink = standard(writer)
    sink.write("parent\n")
    assert sink.drain(60)
    if (child := os.fork()) == 0:
        sink.write("child\n")
        os._exit(0 if sink.drain(60) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 100) == b"parent\nchild\n"
    os.close(reader)
    os.close(writer)


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("value", ["half \ud83d", _Unprintable(), {"\ud83d": _Unprintable()}])
def test_f14_a_value_that_cannot_be_rendered_costs_no_more_than_itself(
    form: str, value: object, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        configure(form, stream=stream)
        structlog.get_logger().info("settled", what=value)
        logging.getLogger("arq.worker").warning("%d jobs", "none")
        logging.getLogger("aiohttp.server").warning("job %s", value)
        structlog.get_logger().info("next")
    text = path.read_text(errors="replace")
    assert "settled" in text
    assert "arq.worker" in text
    assert "next" in text
    if form == "json":
        assert all(json.loads(line) for line in text.splitlines())
