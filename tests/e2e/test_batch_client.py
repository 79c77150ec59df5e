"""OpenAI's own client, unmodified, through a run with faults: another base URL, and a token as its key."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.api.dialects.batch.errors import BATCH
from tests.e2e.stack import Stack, running_stack
from tests.refusing import KIND_OF, RETRY_S, WAITING, refusing
from tests.servers.valkey import ValkeyServer

if TYPE_CHECKING:
    import openai  # or each process of a test run takes a second for it

ROOT = Path(__file__).parents[2]
COUNT = 40
ENDPOINT = "/v1/monitor/gemini"


def line(n: int) -> str:
    body = {"prompt": f"question {n}", "country": "US"}
    return json.dumps({"custom_id": f"id-{n}", "method": "POST", "url": ENDPOINT, "body": body})


async def read(client: "openai.AsyncOpenAI", file_id: str | None) -> list[Any]:
    text = "" if file_id is None else (await client.files.content(file_id)).text
    return [json.loads(line) for line in text.splitlines()]


def run_documented_commands(stack: Stack) -> None:
    """What docs/api.md tells to type, as it stands there but for the port."""
    section = (ROOT / "docs" / "api.md").read_text().partition("## The batch dialect")[2]
    commands = section.partition("```bash\n")[2].partition("```")[0]
    assert "openai_batch.py" in commands
    commands = commands.replace("http://127.0.0.1:8081", stack.api_url)
    path = f"{Path(sys.executable).parent}:{stack.env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=stack.env | {"PATH": path},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed: " in done.stdout
    assert " of 3 answered" in done.stdout


async def test_openai_s_client_has_every_line_answered_once(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    import openai

    faults = ("--fail", "0.05", "--lose-response", "0.05", "--duplicate", "0.05")
    async with running_stack(tmp_path, postgres_url, valkey.url, "--time-scale", "200", *faults) as stack:
        stack.start("api")
        key = await stack.token("submit")
        async with openai.AsyncOpenAI(base_url=f"{stack.api_url}/v1", api_key=key) as client:
            content = "\n".join(line(n) for n in range(COUNT)).encode()
            file = await client.files.create(file=("monday.jsonl", content), purpose="batch")
            made = await client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,  # type: ignore[arg-type]
                completion_window="24h",
                metadata={"team": "search"},
            )

            async def completed() -> bool:
                return (await client.batches.retrieve(made.id)).status == "completed"

            await stack.until(completed, "a completed batch")
            batch = await client.batches.retrieve(made.id)
            assert batch.metadata == {"team": "search"}
            counts = batch.request_counts
            assert counts is not None
            assert (counts.total, counts.completed + counts.failed) == (COUNT, COUNT)
            assert batch.output_file_id is not None
            answers = [
                json.loads(line)
                for line in (await client.files.content(batch.output_file_id)).text.splitlines()
            ]
            errors = []
            if batch.error_file_id is not None:
                text = (await client.files.content(batch.error_file_id)).text
                errors = [json.loads(line) for line in text.splitlines()]
            assert (len(answers), len(errors)) == (counts.completed, counts.failed)
            known = [one["custom_id"] for one in answers + errors]
            assert sorted(known) == sorted(f"id-{n}" for n in range(COUNT))
            assert all(one["response"]["body"]["result"]["text"] for one in answers)
            assert all(one["error"]["code"] for one in errors)
            assert [one.id async for one in client.batches.list(limit=1)] == [made.id]
            assert [one.id async for one in client.files.list()] == [file.id]
            assert (await client.files.content(file.id)).content == content
            assert (await client.files.delete(file.id)).deleted
        digits = made.id.removeprefix("batch_")
        stack.run_id = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
        stack.assert_certified()
        await asyncio.get_running_loop().run_in_executor(None, run_documented_commands, stack)


async def test_openai_s_client_takes_each_refusal_for_what_it_is() -> None:
    import openai

    named = {400: "BadRequest", 401: "Authentication", 403: "PermissionDenied", 404: "NotFound"}
    named |= {409: "Conflict", 422: "BadRequest", 429: "RateLimit"}

    async def asked(client: openai.AsyncOpenAI, code: str) -> tuple[openai.APIStatusError, float]:
        begun_s = time.monotonic()
        try:
            await client.files.retrieve(code)
        except openai.APIStatusError as error:
            return error, time.monotonic() - begun_s
        raise AssertionError(code)

    async with (
        refusing(BATCH) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="thk_x", max_retries=1) as client,
    ):
        found = await asyncio.gather(*(asked(client, code) for code in KIND_OF))
    for (code, kind), (error, took_s) in zip(KIND_OF.items(), found, strict=True):
        usual = "InternalServer" if kind.status >= 500 else "APIStatus"
        assert type(error).__name__ == f"{named.get(kind.status, usual)}Error", code
        assert f"what to do about {code}" in error.message
        assert (error.param, error.request_id) == ("limit", "r-1")
        assert server.asked[code] == (2 if kind.status in (408, 409, 429) or kind.status >= 500 else 1), code
        assert kind.status not in WAITING or took_s >= RETRY_S, "as Retry-After says"
