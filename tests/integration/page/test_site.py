"""The shell of every page: addresses, what goes wrong as a page, static files; beside an API as it was."""

import gzip

import pytest

from app.page.table import PAGES
from app.store import Store
from tests.integration.page.visiting import Visitor

HOSTILE = "</td><script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x00\u202e\ud83d\ude00 \x1b[31m"
HTML = {"Accept": "text/html,*/*;q=0.8"}


async def test_a_hostile_name_is_text(reader: Visitor) -> None:
    await reader.api.run(HOSTILE.replace("\x00", ""))
    seen = await reader.look("/")
    assert seen.status == 200
    assert "<script>alert" not in seen.body and "<img" not in seen.body and "\x1b" not in seen.body
    assert "</td><script>alert(1)</script>" in seen.text
    assert [node.attributes for node in seen.tree.css("script") if not node.attributes.get("src")] == []


async def test_no_page_has_script_or_style_of_its_own(reader: Visitor) -> None:
    await reader.api.run()
    tree = (await reader.look("/")).tree
    for node in tree.css("*"):
        assert not [name for name in node.attributes if name.startswith("on") or name == "style"]
    assert tree.css("style") == []


async def test_a_page_has_its_landmarks_and_one_heading(reader: Visitor) -> None:
    tree = (await reader.look("/")).tree
    assert [len(tree.css(name)) for name in ("header", "nav[aria-label=Pages]", "main", "h1")] == [1, 1, 1, 1]
    assert tree.css_first("a.skip[href='#content']") is not None and tree.css_first("#content") is not None
    ids = [node.attributes["id"] for node in tree.css("[id]")]
    assert len(ids) == len(set(ids))


async def test_the_navigation_shows_where_one_is_and_behind_what(reader: Visitor) -> None:
    run_id = await reader.api.run()
    for path, place, how in (
        ("/", "/", "page"),
        (f"/runs/{run_id}", "/", "true"),
        ("/bulk", "/bulk", "page"),
    ):
        (current,) = (await reader.look(path)).tree.css("nav [aria-current]")
        assert (current.attributes["href"], current.attributes["aria-current"]) == (place, how)


async def test_runs_are_shown_a_page_at_a_time(visitor: Visitor) -> None:
    for n in range(26):
        await visitor.api.run(f"run {n}", tasks=1)
    first = await visitor.look("/")
    assert "run 25" in first.text and "run 0 " not in first.text
    following = first.tree.css_first("a[rel=next]")
    assert following is not None
    second = await visitor.look(following.attributes["href"] or "")
    assert "run 0 " in second.text and "First page" in second.text and second.tree.css("a[rel=next]") == []


async def test_nothing_yet_is_said(reader: Visitor) -> None:
    assert "There are no runs yet" in (await reader.look("/")).text


async def test_what_goes_wrong_is_a_page_that_says_what_to_do(reader: Visitor) -> None:
    missing = await reader.look("/no/such/page", headers=HTML)
    assert (missing.status, "Go to the overview" in missing.text) == (404, True)
    assert missing.tree.css_first("nav[aria-label=Pages]") is not None
    wrong = await reader.look("/?cursor=wrong")
    assert (wrong.status, "next_cursor" in wrong.text) == (422, True)
    unknown = await reader.look("/?nonsense=<b>")
    assert (unknown.status, "nonsense" in unknown.body) == (422, False)
    assert "cursor" in unknown.text


async def test_a_bug_and_a_database_that_is_away_are_pages_too(
    stranger: Visitor, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.ports import StoreUnavailable

    await stranger.sign_in()
    for error, status in ((StoreUnavailable("x secret"), 503), (RuntimeError("x secret"), 500)):

        async def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(type(sqlite_store.run_pages), "runs_before", fail)
        seen = await stranger.look("/")
        assert (seen.status, "secret" in seen.body) == (status, False)
        assert "request" in seen.text


async def test_programs_get_the_apis_own_answers(reader: Visitor) -> None:
    for path in ("/no/such/page", "/v1/nothing"):
        seen = await reader.api.ask(path)
        assert (seen.status, seen.document["code"]) == (404, "not_found")
    assert (await reader.api.ask("/v1/nothing", headers=HTML)).document["code"] == "not_found"
    assert (await reader.api.ask("/", "POST")).status == 404
    async with reader.api.client.get("/healthz") as response:
        assert await response.text() == "ok\n"


async def test_files_are_served_for_ever_under_the_hash_of_what_they_are(reader: Visitor) -> None:
    tree = (await reader.look("/")).tree
    paths = [node.attributes["href"] for node in tree.css("link[rel=stylesheet]")]
    paths += [node.attributes["src"] for node in tree.css("script")]
    assert len(paths) == 5
    for path in paths:
        async with reader.api.client.get(path or "", headers={"Accept-Encoding": "gzip"}) as response:
            assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
            assert "immutable" in response.headers["Cache-Control"]
            body = await response.read()
        async with reader.api.client.get(path or "", headers={"Accept-Encoding": "identity"}) as response:
            plain = await response.read()
        assert plain in (body, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    for name in ("style.css", "../site.py", "%2e%2e/site.py", "style.0000000000000000.css"):
        assert (await reader.look(f"/static/{name}")).status == 404


async def test_a_get_changes_nothing(reader: Visitor) -> None:
    """No page that only shows takes a form, and no form is reached by a link."""
    assert {route.method for route in PAGES} <= {"GET", "POST"}
    assert (await reader.look("/sign-out", headers=HTML)).status == 404
