"""Half an emoji, NUL and halves in keys, from the delivery to everything that is made of it, on both stores;
by the real commands."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.task import idempotency_key
from tests.e2e.test_cli import Cli, cli, here, restored_logging
from tests.integration.services.pipeline import Pipeline
from tests.integration.services.test_set_aside import scene

__all__ = ["cli", "here", "restored_logging", "scene"]

HALF = "a \ud83d b \ude00\ud83d c \x00 d \U0001f600"
WHOLE = "a \ufffd b \ufffd\ufffd c \x00 d \U0001f600"
ANSWER = {
    "text": HALF,
    "markdown": HALF,
    "html": f"<p>{HALF}",
    "sources": [{"position": 1, "url": f"https://x.example/{HALF}", "label": HALF, HALF: [HALF, [HALF]]}],
}


async def settled(pipeline: Pipeline) -> None:
    """One answer, one failure, one charge to be explained, and one that is told twice, differently."""
    await pipeline.start(4)
    await pipeline.submit()
    answer, failure, dear, twice = [
        pipeline.provider.finish(idempotency_key(task, 1), "FAILED" if n == 1 else "COMPLETED")
        for n, task in enumerate(pipeline.task_ids)
    ]
    for one in (answer, dear, twice):
        one.response = ANSWER
    failure.response = {"error": {"code": f"CODE{HALF}", "message": HALF, "details": {HALF: HALF}}}
    bodies = [answer.body(), failure.body(), dear.body(creditsCharged=9), twice.body()]
    ids = await pipeline.receive(*bodies, twice.body(creditsCharged=8, response={"text": HALF}))
    summary = await pipeline.settle(ids)
    assert (summary.settled, summary.quarantined) == (5, 0), "the conflict is one, too"


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_f4_what_is_exported_is_text_and_says_what_was_there(
    cli: Cli, scene: Any, here: Path, format_: str
) -> None:
    scene(settled)
    assert cli(f"export --format {format_} -o out").code == 0
    if format_ == "parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(here / "out").to_pylist()
        texts = [str(row) for row in rows]
        assert all("\ufffd" in text for text in texts) and "\ud83d" not in "".join(texts)
        return
    text = (here / "out").read_bytes().decode()
    assert "\ud83d" not in text and "\\ud83d b" not in text
    if format_ == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows[0]["response"]["text"] == WHOLE
        assert rows[0]["response"]["sources"][0][WHOLE] == [WHOLE, [WHOLE]]
        assert "\ufffd" in rows[1]["error_message"]


def test_f4_every_command_takes_it(cli: Cli, scene: Any, here: Path) -> None:
    scene(settled)
    for line in ("report", "status", "certificate", "verify", "runs", "forecast", "notices", "inbox list"):
        for as_json in ("", " --json"):
            ran = cli(line + as_json)
            assert ran.code == 0, (line, ran.out, ran.err)
            ran.out.encode()
    assert cli("report --html made.html").code == 0
    assert cli("certificate -o made.txt").code == 0
    assert cli("dispute -o made.zip").code == 0
    for name in ("made.html", "made.txt"):
        (here / name).read_bytes().decode()
    assert (here / "made.zip").stat().st_size > 0
