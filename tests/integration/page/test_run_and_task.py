"""The pages of a run and of a task: what people read of one that went in all ways, whoever wrote in it."""

import io
import json
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.own_columns import OwnColumns
from app.domain.task import TaskSpec, new_id
from app.page.parts import chart
from app.page.run import voided
from app.store.read import run_samples
from app.store.tables import tasks
from tests.integration.api.asking import until
from tests.integration.api.test_reading import settled_run
from tests.integration.page.conftest import StartPage
from tests.integration.page.visiting import Visitor
from tests.integration.store.scenes import ended, execute, failed_on, report_on, settle_all

HOSTILE = "</pre></script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e{{7*7}}"


async def task_ids(visitor: Visitor, run_id: str) -> list[str]:
    """In the order of the source."""
    found = await visitor.api.ask(f"/v1/runs/{run_id}/tasks")
    return [task["id"] for task in found.document["data"]]


async def test_a_run_says_how_far_it_is_and_what_it_costs(visitor: Visitor) -> None:
    run_id = await settled_run(visitor.api)
    seen = await visitor.look(f"/runs/{run_id}")
    assert seen.status == 200, seen.text
    for said in (
        "11 of 12 tasks done",
        "Charged 52.5",
        "Held 5",
        "Given back: 5 credits",
        "Estimated 60",
        "overcharged 1",
        "11 of 12 judged",
        "10 of 12 answered",
        "FAILED",
        "1 of 1 with their reasons here",
    ):
        assert said in seen.text, said
    assert len(seen.tree.css("figure svg.columns")) == 2
    failed = (await task_ids(visitor, run_id))[0]
    assert (await visitor.act(f"/tasks/{failed}/retry")).status == 303
    assert "11 of 13 attempts judged" in (await visitor.look(f"/runs/{run_id}")).text


async def test_tasks_are_found_by_the_filter_bar(visitor: Visitor) -> None:
    run_id = await settled_run(visitor.api)
    for words, names in {
        "state:failed": ["row-1"],
        "engine:gemini country:de": ["row-4", "row-10"],
        "verdict:overcharged": ["row-2"],
        "custom_id:row-7": ["row-7"],
        'text:"SECRET 1"': ["row-1", "row-10", "row-11", "row-12"],
        "text:100% state:failed": [],
        "state:completed engine:gemini country:de text:secret custom_id:row-10": ["row-10"],
        "country:de verdict:matched engine:gemini text:1 state:completed": ["row-10"],
        "state:failed verdict:matched": [],
    }.items():
        seen = await visitor.look(f"/runs/{run_id}", params={"q": words})
        shown = [cell.text(strip=True) for cell in seen.tree.css("td[data-label=custom_id]")]
        assert (seen.status, shown) == (200, names), words
        prompts = [cell.text(strip=True) for cell in seen.tree.css("td[data-label=Prompt]")]
        assert prompts == [f"secret {name.removeprefix('row-')}" for name in names]
    for words, said in {
        "colour:red": "colour: is unknown: use state:",
        "state:lost": "use one of pending",
        "country:Britain": "country:Britain is no country",
        "run:nothing-called-so": "run of this name",
    }.items():
        seen = await visitor.look(f"/runs/{run_id}", params={"q": words})
        assert seen.status in (404, 422) and said in seen.text, words


async def test_the_word_run_leads_to_another_one(reader: Visitor) -> None:
    run_id = await settled_run(reader.api)
    other = await reader.api.run("tuesday")
    seen = await reader.look(f"/runs/{run_id}", params={"q": 'run:tuesday state:failed text:"a b"'})
    assert (seen.status, seen.headers["Location"]) == (
        303,
        f"/runs/{other}?q=state%3Afailed+text%3A%22a+b%22",
    )


async def test_a_long_run_is_drawn_of_a_sample_that_says_so(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_samples, "SAMPLED", 5)
    monkeypatch.setattr(run_samples, "STRETCH", 1)
    run_id = await settled_run(visitor.api)
    text = (await visitor.look(f"/runs/{run_id}")).text
    assert "3 of 5 answered , in 5 tasks evenly spread over 12" in text
    assert "11 of 12 tasks done" in text and "(voided) is added up when the run has ended" in text


async def test_what_a_long_run_got_back_is_added_up_beside_its_page_once_it_has_ended(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_samples, "SAMPLED", 5)
    monkeypatch.setattr(run_samples, "STRETCH", 1)
    monkeypatch.setattr(voided, "STEP", 5)
    run_id = await settled_run(visitor.api)
    async with visitor.api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).where(tasks.c.state == "submitted").values(state="expired"))

    async def is_given_back() -> bool:
        return "Given back: 5 credits" in (await visitor.look(f"/runs/{run_id}")).text

    await until(is_given_back, True)
    seen = dict(visitor.api.parts.shared[voided.VOIDED])
    await visitor.look(f"/runs/{run_id}")
    assert visitor.api.parts.shared[voided.VOIDED] == seen


async def test_charts_are_drawn_once_for_each_sample(
    reader: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await settled_run(reader.api)
    drawn, draw = list[str](), chart.stacked_columns

    def count(what: chart.Chart, *rest: Any) -> str:
        drawn.append(what.id)
        return draw(what, *rest)

    monkeypatch.setattr(chart, "stacked_columns", count)
    first, filtered = [await reader.look(f"/runs/{run_id}", params={"q": q}) for q in ("", "state:failed")]
    assert sorted(drawn) == ["latency", "throughput"]
    assert [seen.text.count("10 of 12 answered") for seen in (first, filtered)] == [1, 1]
    await execute(reader.api.store, "UPDATE tasks SET state = 'expired' WHERE state = 'submitted'")
    moved = await reader.look(f"/runs/{run_id}")
    assert "2 of 2 with their reasons here" in moved.text and len(drawn) == 4


async def test_a_run_with_nothing_in_it_yet(reader: Visitor) -> None:
    empty = await reader.look(f"/runs/{await reader.api.run(tasks=0)}")
    assert empty.status == 200 and "There are no tasks" in empty.text
    waits = await reader.look(f"/runs/{await reader.api.run('two')}")
    for said in ("no worker is running", "Nothing is judged yet", "No answer has come yet", "Charged 0"):
        assert said in waits.text, said


@pytest.mark.parametrize("kind", ["runs", "tasks"])
async def test_what_is_not_there_or_of_another_account_is_a_page(kind: str, stranger: Visitor) -> None:
    run_id = await settled_run(stranger.api, "eu")
    (own, *_) = await task_ids(stranger, run_id)
    await stranger.sign_in("read", "us")
    there = {"runs": run_id, "tasks": own}[kind]
    for id_ in (there, new_id(1), "1", "%3Cscript%3E", "x" * 300):
        seen = await stranger.look(f"/{kind}/{id_}")
        assert seen.status == 404, seen.text
        assert "<script>" not in seen.body
    for path in (f"/runs/{run_id}/results.csv", f"/tasks/{own}/reports/{own}"):
        assert (await stranger.look(path)).status == 404
    if kind == "runs":
        mine = await stranger.api.run(account="us")
        assert (await stranger.look(f"/runs/{mine}", params={"q": f"run:{run_id}"})).status == 404


async def test_the_course_of_a_task_and_its_money_stand_on_one_line(visitor: Visitor) -> None:
    run_id = await settled_run(visitor.api)
    first, second, *_, last = await task_ids(visitor, run_id)
    tree = (await visitor.look(f"/tasks/{second}")).tree
    course = [node.text(strip=True) for node in tree.css(".timeline .what")]
    assert course == [
        "Stored",
        "Sent: accepted",
        "Held 5 credits",
        "Delivered by webhook",
        "Settled: posted 7.5 credits",
        "Found: overcharged",
    ]
    sums = [[cell.text(strip=True) for cell in row.css("th, td")] for row in tree.css(".sum tr")]
    assert sums[0] == ["PERPLEXITY, its base price", "+4"]
    assert [row[1] for row in sums if row[0].startswith("charged")] == ["7.5"]
    assert [row[1] for row in sums if row[0].startswith("added")] == ["+2.5"]
    failed = (await visitor.look(f"/tasks/{first}")).text
    assert "Settled: voided 5 credits" in failed and "FAILED no answer" in failed
    waits = (await visitor.look(f"/tasks/{last}")).text
    assert "There is no answer yet" in waits and "Charged — no report has said it" in waits


async def test_raw_evidence_is_given_byte_for_byte(reader: Visitor) -> None:
    run_id = await settled_run(reader.api)
    task_id = (await task_ids(reader, run_id))[2]
    seen = await reader.look(f"/tasks/{task_id}")
    (link,) = [node.attributes["href"] for node in seen.tree.css("a[download]")]
    known = await reader.api.store.disputes.task_with_attempts(task_id)
    assert known is not None
    async with reader.api.client.get(link or "") as response:
        assert await response.read() == known.attempts[0].reports[0].body
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (await reader.look(f"/tasks/{task_id}/reports/{new_id(1)}")).status == 404


async def hostile_run(visitor: Visitor) -> str:
    """A run in which everybody who may write anything has written HOSTILE."""
    api = visitor.api
    store, now = api.store, api.clock
    run_id = await store.runs.create_run(
        name=HOSTILE, source=HOSTILE, budget=None, now_ms=now.advance(1), account="default"
    )
    payload = {"prompt": HOSTILE, "country": "GB", HOSTILE: HOSTILE}
    own = [OwnColumns(n, f"{n}{HOSTILE}", json.dumps({HOSTILE: HOSTILE})) for n in (1, 2, 3)]
    specs = [(TaskSpec(n, "GEMINI", payload, own=own[n - 1]), Decimal(5)) for n in (1, 2, 3)]
    await store.runs.add_tasks(run_id, specs, now())
    await store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)
    sent = await store.submissions.claim_pending(
        limit=3, claim="me", now_ms=now(), lease_until_ms=now() + 60_000, account="default"
    )
    await store.submissions.record_submissions(
        [ended(task, request_id=HOSTILE, code=HOSTILE, message=HOSTILE) for task in sent]
    )
    answer = {
        "text": HOSTILE,
        "sources": [{"url": HOSTILE}, {"url": "javascript:alert(1)"}],
        HOSTILE: HOSTILE,
    }
    await settle_all(
        store,
        report_on(sent[0], "7.5", response=json.dumps(answer).encode()),
        failed_on(sent[1], error_code=HOSTILE, error_message=HOSTILE),
    )
    await store.runs.pause_run(run_id, HOSTILE, "by_hand") if hasattr(store.runs, "pause_run") else None
    return run_id


async def test_whatever_anybody_wrote_is_text(visitor: Visitor) -> None:
    run_id = await hostile_run(visitor)
    paths = ["/", f"/runs/{run_id}", *(f"/tasks/{task}" for task in await task_ids(visitor, run_id))]
    for path in paths:
        seen = await visitor.look(path)
        assert seen.status == 200, seen.text
        assert "<script>alert" not in seen.body and "<img" not in seen.body, path
        for node in seen.tree.css("*"):
            names = node.attributes
            assert not [name for name in names if name.startswith("on") or name == "style"], path
            assert not (names.get("href") or "").lower().startswith("javascript"), path
    filtered = await visitor.look(f"/runs/{run_id}", params={"q": f'custom_id:"1{HOSTILE}"'})
    assert "<script>alert" not in filtered.body


async def test_prompts_and_answers_can_be_hidden(start_page: StartPage, stranger: Visitor) -> None:
    hiding = await start_page(stranger.api.store, page_hide_prompts=True)
    await hiding.sign_in()
    run_id = await settled_run(hiding.api)
    tasks = await task_ids(hiding, run_id)
    for path in ["/", f"/runs/{run_id}", *(f"/tasks/{task}" for task in tasks[:3])]:
        seen = await hiding.look(path)
        assert seen.status == 200
        assert "secret" not in seen.body and '"yes"' not in seen.body and "banks" not in seen.body, path
    seen = await hiding.look(f"/runs/{run_id}", params={"q": "text:secret"})
    assert (seen.status, "hidden" in seen.text) == (422, True)
    report = (await hiding.api.ask(f"/v1/tasks/{tasks[2]}")).document["attempts"][0]["deliveries"][0]["id"]
    for path in (f"/runs/{run_id}/results.jsonl", f"/tasks/{tasks[2]}/reports/{report}"):
        assert (await hiding.look(path)).status == 403


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("what", ["results", "ledger"])
async def test_all_of_a_run_is_downloaded(what: str, format_: str, reader: Visitor) -> None:
    run_id = await settled_run(reader.api)
    async with reader.api.client.get(f"/runs/{run_id}/{what}.{format_}") as response:
        assert response.status == 200
        assert response.headers["Content-Disposition"].endswith(f"r-{what}.{format_}")
        body = await response.read()
    rows = {"results": 12, "ledger": 23}[what]
    assert _count(body, format_) == rows


def _count(body: bytes, format_: str) -> int:
    if format_ == "parquet":
        import pyarrow.parquet as pq

        return int(pq.read_table(io.BytesIO(body)).num_rows)
    if format_ == "csv":
        import csv

        return len(list(csv.DictReader(io.StringIO(body.decode()))))
    documents: list[Any] = [json.loads(line) for line in body.splitlines()]
    return len(documents)
