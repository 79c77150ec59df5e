"""A fault that lasts is a line a minute."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.log import configure
from app.log_repeats import KINDS_MAX, REST_S, Repeats


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where logs go; what was configured before comes back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level, structlog.get_config())
    stream = io.StringIO()
    configure("json", stream=stream)
    yield stream
    structlog.configure(**before[2])
    root.handlers = before[0]
    root.setLevel(before[1])


def events(out: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in out.getvalue().splitlines()]


def test_a_line_that_is_said_again_is_counted() -> None:
    at = [0.0]
    repeats = Repeats(lambda: at[0])
    seen = []
    for _ in range(400):
        seen.append(repeats.count("wake_failed"))
        at[0] += 0.25
    assert [times for times in seen if times] == [1, round(REST_S / 0.25)]
    assert repeats.count("another") == 1


def test_only_what_says_the_same_is_left_out(out: io.StringIO) -> None:
    log = structlog.get_logger()
    for number in range(3):
        log.warning("wake_failed", job="settle", took_s=number / 10)
        log.warning("delivery_held_up", id=f"d-{number}")
        log.info("committed", count=number)
    log.warning("wake_failed", job="submit")
    log.error("wake_failed", job="settle", error="OSError")
    assert events(out) == [
        *("wake_failed", "delivery_held_up", "committed"),
        *("delivery_held_up", "committed") * 2,
        *("wake_failed",) * 2,
    ]


def test_another_error_in_the_same_place_is_said(out: io.StringIO) -> None:
    log = structlog.get_logger()
    for error in (ValueError("a"), ValueError("a"), ValueError("b"), KeyError("a")):
        try:
            raise error
        except Exception:
            log.exception("turn_failed", work="sweep")
    assert len(events(out)) == 3


def test_what_is_bound_tells_lines_apart(out: io.StringIO) -> None:
    for run in ("r-1", "r-2", "r-2"):
        with structlog.contextvars.bound_contextvars(run_id=run):
            structlog.get_logger().warning("over_budget")
    assert len(events(out)) == 2


def test_what_counts_itself_keeps_its_count(out: io.StringIO) -> None:
    for times in (7, 8):
        structlog.get_logger().warning("delivery_refused", reason="stale", times=times)
    assert [json.loads(line)["times"] for line in out.getvalue().splitlines()] == [7, 8]


def test_lines_of_libraries_too(out: io.StringIO) -> None:
    for number in range(5):
        logging.getLogger("arq").warning("job %s", number)
        logging.getLogger("arq").info("no matter")
    assert events(out) == ["job 0"]


def test_what_is_remembered_stays_bounded() -> None:
    repeats = Repeats(lambda: 0.0)
    assert all(repeats.count(number) for number in range(2 * KINDS_MAX))
    assert repeats.count(0) == 1, "said again rather than forgotten"
    assert repeats.count(2 * KINDS_MAX - 1) == 0
