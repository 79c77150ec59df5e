"""Logs: one pipeline for ours and the libraries', JSON or readable, and nothing secret in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.log import LEFT_OUT, configure

SECRET = "whsec_test_0123456789abcdef"
PROMPT = "best running shoes for flat feet"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where logs go; what was configured before comes back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level, structlog.get_config())
    yield io.StringIO()
    structlog.configure(**before[2])
    structlog.contextvars.clear_contextvars()
    root.handlers = before[0]
    root.setLevel(before[1])


def lines(out: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_with_bound_context(out: io.StringIO) -> None:
    configure("json", "info", stream=out)
    structlog.contextvars.bind_contextvars(run_id="r-1", task_id="t-1")
    structlog.get_logger("x").info("settled", credits=7)
    logging.getLogger("arq.worker").warning("job %s", "j-1")
    ours, theirs = lines(out)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"level": "info", "event": "settled", "credits": 7, "run_id": "r-1", "task_id": "t-1"}
    assert (theirs["event"], theirs["logger"], theirs["run_id"]) == ("job j-1", "arq.worker", "r-1")


def test_auto_is_json_where_there_is_no_terminal(out: io.StringIO) -> None:
    configure("auto", stream=out)
    structlog.get_logger().info("hello")
    assert lines(out)[0]["event"] == "hello"


def test_auto_is_readable_on_a_terminal(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "isatty", lambda: True)
    configure("auto", stream=out)
    structlog.get_logger().info("hello", prompt=PROMPT)
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")
    assert PROMPT not in out.getvalue()


def test_the_level_holds_for_all(out: io.StringIO) -> None:
    configure("json", "warning", stream=out)
    structlog.get_logger().info("no")
    logging.getLogger("arq").info("no")
    structlog.get_logger().warning("yes")
    logging.getLogger("arq").error("yes")
    assert [line["event"] for line in lines(out)] == ["yes", "yes"]


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "api_key",
        "X-Api-Key",
        "secret",
        "webhook_secret",
        "body",
        "raw_body",
        "prompt",
        "query",
        "payload",
        "response",
        "system_prompt",
        "password",
        "access_token",
    ],
)
@pytest.mark.parametrize("value", [PROMPT, PROMPT.encode(), [PROMPT], {"text": PROMPT}])
def test_values_are_left_out_by_name(out: io.StringIO, name: str, value: object) -> None:
    configure("json", stream=out)
    structlog.get_logger().info("x", **{name: value})
    structlog.get_logger().info("x", nested=[{"deep": {name: value}}])
    flat, nested = lines(out)
    assert flat[name] == LEFT_OUT
    assert nested["nested"][0]["deep"][name] == LEFT_OUT
    assert PROMPT not in out.getvalue()


def test_useful_values_stay(out: io.StringIO) -> None:
    configure("json", stream=out)
    kept = {
        "idempotency_key": "018f.1",
        "body_bytes": 18_000,
        "query": 3,
        "secret": None,
        "key": "value",
        "port": 80,
    }
    structlog.get_logger().info("x", **kept)
    assert kept.items() <= lines(out)[0].items()


@pytest.mark.parametrize("renderer", ["json", "console"])
def test_what_looks_like_a_secret_is_blotted_out_of_every_text(out: io.StringIO, renderer: str) -> None:
    configure(renderer, stream=out)
    log = structlog.get_logger()
    log.info(f"signed with {SECRET}", url="postgresql://me:hunter22@db/x", header="Bearer abcdefgh12345678")
    logging.getLogger("aiohttp").warning("key %s", "sk_test_0123456789abcdef")
    try:
        raise RuntimeError(f"refused {SECRET}")
    except RuntimeError as error:
        log.exception("failed", error=error)
        logging.getLogger("x").exception("failed")
    text = out.getvalue()
    assert "refused whsec_..." in text
    for hidden in (SECRET, "hunter22", "abcdefgh12345678", "sk_test_0123456789abcdef"):
        assert hidden not in text


def test_values_of_a_failed_statement_are_left_out(out: io.StringIO) -> None:
    configure("json", stream=out)
    error = (
        "(IntegrityError) null value\nDETAIL:  Failing row contains (1, best shoes).\n[SQL: INSERT INTO x]\n"
        f"[parameters: ('{PROMPT}', 'a]\\nb')]\n(Background on this error at: https://sqlalche.me/e/20/gkpj)"
    )
    structlog.get_logger().error("failed", error=error)
    text = lines(out)[0]["error"]
    assert "best" not in text
    assert "INSERT INTO x" in text
    assert "Background" in text


def test_sql_is_not_logged_at_any_level(out: io.StringIO) -> None:
    configure("json", "debug", stream=out)
    for name in ("sqlalchemy.engine", "aiosqlite", "asyncpg"):
        logging.getLogger(name).info("INSERT INTO tasks VALUES (%s)", PROMPT)
        logging.getLogger(name).debug("INSERT INTO tasks VALUES (%s)", PROMPT)
    assert out.getvalue() == ""


def test_tracebacks_do_not_show_local_values(out: io.StringIO) -> None:
    for renderer in ("json", "console"):
        configure(renderer, stream=out)
        local_value = PROMPT[::-1]
        try:
            raise ValueError(len(local_value))
        except ValueError:
            structlog.get_logger().exception("failed")
        assert local_value not in out.getvalue()
