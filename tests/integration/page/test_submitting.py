"""Submitting a file by the page: looked at, priced, sent once, or thrown away; nothing of it before."""

import gzip
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import FormData

from app.domain.time_format import DAY_MS
from app.store.tables import idempotency_keys, runs, tasks
from tests.integration.page.visiting import Seen, Visitor
from workers.duties.idempotency import clean_keys

HOSTILE = "<script>alert(1)</script>'\"\u202e"
CSV = b"prompt,country,task_type,note\nbest shoes,GB,CHATGPT,a\nhats,XX,CHATGPT,b\ncoats,DE,GEMINI,c\n"


async def upload(visitor: Visitor, content: bytes, file: str = "my prompts.csv", **fields: str) -> Seen:
    """As a browser sends the form."""
    seen = await visitor.look("/submit")
    form = FormData(quote_fields=False)
    for field, value in ({"form_token": seen.form_token} | fields).items():
        form.add_field(field, value)
    form.add_field("file", content, filename=file, content_type="text/csv")
    return await visitor.post("/submit", form)


async def all_runs(visitor: Visitor) -> list[Any]:
    async with visitor.api.store.db.engine.connect() as connection:
        count = sa.select(sa.func.count()).where(tasks.c.run_id == runs.c.id).scalar_subquery()
        return [tuple(row) for row in await connection.execute(sa.select(runs.c.name, runs.c.state, count))]


async def test_a_file_is_looked_at_and_sent_once(visitor: Visitor) -> None:
    sent = await upload(visitor, CSV, account="default")
    path = sent.headers["Location"]
    shown = await visitor.look(path)
    assert "Send 2 tasks?" in shown.text
    assert "May cost 9" in shown.text
    assert "Left out 1" in shown.text
    assert "Line 3" in shown.text
    assert "note" in shown.text
    name, state, count = (await all_runs(visitor))[0]
    assert (name.startswith("my-prompts-"), state, count) == (True, "loading", 2)
    begun = await visitor.act(f"{path}/begin")
    assert (begun.status, begun.headers["Location"].startswith("/runs/")) == (303, True)
    assert (await visitor.act(f"{path}/begin")).headers["Location"] == begun.headers["Location"]
    assert [(row[1], row[2]) for row in await all_runs(visitor)] == [("running", 2)]
    assert (await visitor.look(path)).headers["Location"] == begun.headers["Location"]
    assert (await visitor.act(f"{path}/discard")).headers["Location"] == "/submit"
    assert [row[1] for row in await all_runs(visitor)] == ["running"]
    listed, _ = await visitor.api.store.access.actions_before(None, 9)
    assert [(row.action, row.status) for row in listed if row.token_id] == [("run.create", 200)]


async def test_the_example_of_the_form_is_a_file_that_it_takes(visitor: Visitor) -> None:
    shown = (await visitor.look("/submit")).tree.css_first("pre").text()
    seen = await visitor.look((await upload(visitor, shown.encode())).headers["Location"])
    assert "Send 2 tasks?" in seen.text and "Left out 0" in seen.text
    refused = await upload(visitor, b"prompt\nbest shoes\n")
    assert refused.status == 422 and "choose an engine in the form" in refused.text


async def test_it_is_thrown_away_by_hand_or_by_and_by(visitor: Visitor) -> None:
    path = (await upload(visitor, gzip.compress(CSV), "a.csv.gz", name="mine")).headers["Location"]
    assert (await visitor.act(f"{path}/discard")).status == 303
    assert await all_runs(visitor) == []
    assert (await visitor.look(path)).status == 404
    assert (await visitor.act(f"{path}/begin")).status == 404
    # One whose process died in the middle of it.
    store, now_ms = visitor.api.store, visitor.api.clock()
    token_id = (await store.access.list_tokens(1))[0].id
    await store.uploads.take_upload(token_id, " upload x", now_ms=now_ms, until_ms=now_ms)
    with store.uploads.with_run(token_id, " upload x", "01a0f4c2-c400-7000-8000-000000000001"):
        await store.runs.create_run(
            run_id="01a0f4c2-c400-7000-8000-000000000001", name="r", source="-", budget=None, now_ms=now_ms
        )
    late = (await upload(visitor, CSV)).headers["Location"]
    visitor.api.clock.advance(3_600_000)
    await visitor.sign_in()
    assert (await visitor.act(f"{late}/begin")).status == 404
    visitor.api.clock.advance(DAY_MS)

    class Context:
        store, clock, settings = visitor.api.store, visitor.api.clock, visitor.api.parts.settings

    await clean_keys(Context(), "me")  # type: ignore[arg-type]
    assert await all_runs(visitor) == []
    async with visitor.api.store.db.engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(idempotency_keys)) == 0


@pytest.mark.parametrize(
    ("content", "fields", "status", "says"),
    [
        (b"prompt,country\n,GB\n", {}, 422, "no line of it was taken"),
        (CSV, {"strict": "true"}, 422, "'xx' is not a country code"),
        (CSV + b"best shoes,GB,CHATGPT,a\n", {"duplicates": "error"}, 422, "then nothing is sent"),
        (CSV, {"budget": "lots"}, 422, "budget"),
        (CSV, {"repeats": "0"}, 422, "repeats"),
        (CSV, {"account": "nobody"}, 404, "account"),
        (b"\x1f\x8b broken", {}, 400, "unpacked"),
        (CSV, {"surprise": "1"}, 422, "own form"),
        (CSV, {"form_token": "another"}, 403, "another session"),
    ],
)
async def test_what_is_refused_leaves_nothing(
    stranger: Visitor, content: bytes, fields: dict[str, str], status: int, says: str
) -> None:
    await stranger.sign_in()
    seen = await upload(stranger, content, **fields)
    assert (seen.status, says in seen.text.lower()) == (status, True), seen.text
    assert await all_runs(stranger) == []
    async with stranger.api.store.db.engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(idempotency_keys)) == 0


async def test_a_file_that_breaks_off_and_names_of_strangers(stranger: Visitor) -> None:
    await stranger.sign_in()
    hostile = (
        f"prompt,country,{HOSTILE.replace(chr(34), '')}\n{HOSTILE},GB,x\n{HOSTILE},{HOSTILE},y\n".encode()
    )
    sent = await upload(stranger, hostile, f"{HOSTILE}.csv", task_type="CHATGPT")
    shown = sent if sent.status != 303 else await stranger.look(sent.headers["Location"])
    assert "<script>alert" not in shown.body
    assert all(node.attributes.get("src") for node in shown.tree.css("script"))
    before = await all_runs(stranger)
    token = (await stranger.look("/submit")).form_token
    broken = (
        f'--x\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{token}\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nprompt,country\nbest'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    seen = await stranger.post("/submit", broken.encode(), headers=headers)
    assert seen.status in (400, 422)
    field = '\r\n--x\r\nContent-Disposition: form-data; name="budget"\r\n\r\n5\r\n--x--\r\n'
    seen = await stranger.post("/submit", f"{broken} shoes,GB{field}".encode(), headers=headers)
    assert (seen.status, "after all other fields" in seen.text) == (422, True)
    assert await all_runs(stranger) == before


async def test_who_may_only_read_submits_nothing(stranger: Visitor) -> None:
    await stranger.sign_in("read")
    assert (await stranger.look("/submit")).status == 403
    assert (await upload(stranger, CSV)).status == 403
    await stranger.sign_in("submit")
    path = (await upload(stranger, CSV)).headers["Location"]
    assert (await stranger.look("/submit")).status == 200
    await stranger.sign_in("operate")
    assert (await stranger.look(path)).status == 404, "another token's upload is its own affair"
    assert (await stranger.act(f"{path}/begin")).status == 404
    assert [row[1] for row in await all_runs(stranger)] == ["loading"]
