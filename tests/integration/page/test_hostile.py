"""Strangers at every page: whatever they wrote, in every field, is text; no form of theirs is taken; no file
that is downloaded runs a formula. The pages are those of the table, so that a new one is tried too."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from aiohttp import FormData

from app.domain.access import prefix_of
from app.domain.relay.message import NewEndpoint, new_secret
from app.files.export import FORMULA
from app.page.downloads.tables import LISTINGS
from app.page.table import PAGES
from app.services.access import create_token
from app.store.tables import deliveries, findings, relay_endpoints, runs
from tests.integration.page.conftest import StartPage
from tests.integration.page.test_more_pages import delivery, finding, insert
from tests.integration.page.test_run_and_task import HOSTILE, hostile_run, task_ids
from tests.integration.page.test_signing_in import CROSS
from tests.integration.page.visiting import Seen, Visitor
from tests.integration.store.scenes import execute

EVIL = f'=HYPERLINK("javascript:alert(1)","x"){HOSTILE}'
URLS = ("href", "src", "action", "formaction", "poster", "data", "hx-get", "hx-post", "hx-sse:connect")
ID = "01a21f5a-afbb-75be-bd83-ef5b52d06d6f"
OWN = re.compile(r"(/(?!/)|#|data:,$)")


async def everywhere(visitor: Visitor) -> dict[str, str]:
    """A store in which strangers have written wherever they can; the ids that addresses name."""
    store, now_ms = visitor.api.store, visitor.api.clock()
    run_id = await hostile_run(visitor)
    tasks = await task_ids(visitor, run_id)
    made = await create_token(store, EVIL[:60], "read", None, now_ms=now_ms)
    assert made is not None and prefix_of(made[1])
    to = NewEndpoint(f"https://evil.example/{EVIL}?token=secret", new_secret())
    pushed = await store.runs.create_run(name=EVIL, source=EVIL, budget=None, now_ms=now_ms, push_to=to)
    await execute(store, relay_endpoints.update().values(last_error=EVIL, failing_since_ms=now_ms))
    await execute(store, runs.update().where(runs.c.id == run_id).values(state="stopped", reason=EVIL))
    await insert(visitor, findings, finding(run_id, tasks[0], now_ms, detail=EVIL, verdict=EVIL))
    kept = delivery(now_ms, error=EVIL, body=EVIL.encode(), webhook_id=EVIL)
    held_up = delivery(now_ms, state="received", error=EVIL, webhook_id=EVIL)
    await insert(visitor, deliveries, kept, held_up)
    await store.refusals.add_refusals({EVIL: 1}, now_ms)
    await store.schedules.add_schedule(
        name=EVIL, source=EVIL, options="{}", every_ms=60_000, next_at_ms=now_ms, now_ms=now_ms
    )
    unquoted = HOSTILE.replace('"', "")
    change = await visitor.act("/bulk", {"verb": "retry", "q": f'run:{run_id} custom_id:"{unquoted}"'})
    assert pushed
    return {
        "run_id": run_id,
        "task_id": tasks[0],
        "delivery_id": kept["id"],
        "change_id": change.headers["Location"].rpartition("/")[2],
        "token_id": (await store.access.list_tokens(9, None, None))[0].id,
    }


def drawn_paths(ids: dict[str, str]) -> Iterator[str]:
    """Of each page that is drawn, as far as its ids are known."""
    for route in PAGES:
        is_drawn = route.method == "GET" and not route.is_listened
        is_drawn = is_drawn and not route.path.endswith((".zip", ":csv|jsonl|parquet}"))
        if is_drawn and all(name in ids for name in re.findall(r"{(\w+)}", route.path)):
            yield re.sub(r"{(\w+)}", lambda found: ids[found[1]], route.path)


def faults(seen: Seen) -> Iterator[str]:
    """What in a page is no text, and none of ours."""
    for node in seen.tree.css("*"):
        if node.tag in ("iframe", "object", "embed", "base", "style", "img"):
            yield node.html or node.tag
        if node.tag == "script" and not (node.attributes.get("src") or "").startswith("/static/"):
            yield node.html or node.tag
        for name, value in node.attributes.items():
            if name.startswith("on") or name in ("style", "srcdoc") or "hx-on" in name:
                yield f"{name} of {node.tag}"
            elif name in URLS and not OWN.match(value or ""):
                rel = (node.attributes.get("rel") or "").split()
                if not re.match(r"https?://", value or "") or "noreferrer" not in rel:
                    yield f"{name}={value}"


async def test_whatever_strangers_wrote_is_text_on_every_page(reader: Visitor) -> None:
    ids = await everywhere(reader)
    paths = [*drawn_paths(ids), *(f"/tasks/{one}" for one in await task_ids(reader, ids["run_id"]))]
    paths += [f"{path}?q={HOSTILE[:20]}" for path in ("/bulk", f"/runs/{ids['run_id']}")]
    paths += [f"/nowhere/{EVIL}", f"/account?account={EVIL}", f"/findings?cursor={EVIL}", f"/?{EVIL}=1"]
    wrong = {}
    for path in paths:
        seen = await reader.look(path, headers={"Accept": "text/html"})
        assert seen.status < 500, (path, seen.text)
        if found := list(faults(seen)):
            wrong[path] = found
        assert "?token=secret" not in seen.body, path
    assert wrong == {}
    assert len(paths) > 25


async def test_no_file_that_is_downloaded_has_a_formula(reader: Visitor) -> None:
    ids = await everywhere(reader)
    files = [f"/downloads/{listing.name}.csv" for listing in LISTINGS]
    files += [f"/runs/{ids['run_id']}/{what}.csv" for what in ("results", "ledger")]
    guarded = 0
    for path in files:
        seen = await reader.look(path)
        assert seen.status == 200, path
        for row in csv.reader(io.StringIO(seen.body)):
            guarded += sum(cell.startswith("'=") for cell in row)
            of_strangers = [cell for cell in row if not re.fullmatch(r"-[0-9.]+", cell)]
            assert not [cell for cell in of_strangers if FORMULA.match(cell)], path
    assert guarded >= 5


async def test_no_form_of_strangers_is_taken(stranger: Visitor, start_page: StartPage) -> None:
    """Without a session's token, with another session's, from another site, and as what no form sends."""
    visitor = await start_page(stranger.api.store, api_rate_per_s=10_000)
    forms = [re.sub(r"{\w+}", ID, route.path) for route in PAGES if route.method == "POST"]
    assert len(forms) > 12
    for path in forms:
        assert (await visitor.send(path, {})).headers["Location"] == "/sign-in"
    await visitor.sign_in("operate")
    before = (await visitor.look("/")).form_token
    await visitor.sign_in("operate")
    own = (await visitor.look("/")).form_token
    for path in ("/sign-out", *forms):
        made = _with_file if path == "/submit" else dict[str, str]
        for token in ("", before, own[::-1]):
            status = (await visitor.post(path, made({"form_token": token}))).status
            assert status == 403, (path, token)
        for why, headers in CROSS.items():
            seen = await visitor.post(path, made({"form_token": own}), headers=headers)
            assert seen.status == 403, (path, why)
        for kind in ("text/plain", "application/json"):
            seen = await visitor.post(path, f"form_token={own}", headers={"Content-Type": kind})
            assert seen.status == 415, (path, kind)
    rows, _ = await visitor.api.store.access.actions_before(None, 9)
    assert {row.action for row in rows} == {"token.create"}


def _with_file(fields: dict[str, str]) -> Any:
    form = FormData()
    for name, value in fields.items():
        form.add_field(name, value)
    form.add_field("file", b"prompt\nx\n", filename="p.csv")
    return form
