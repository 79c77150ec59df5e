"""The pages of tokens and of actions: what is shown once, who sees what, and what strangers wrote."""

import re

from app.services.access import BY_COMMAND, create_token
from app.store import Store
from tests.integration.page.conftest import StartPage
from tests.integration.page.visiting import Visitor

HOSTILE = "<script>alert(1)</script>\" onload='x"


async def test_a_token_is_made_once_shown_once_and_revoked(visitor: Visitor) -> None:
    form = {"name": "airflow", "scope": "submit", "account": "", "expires": "90d"}
    made = await visitor.act("/tokens", form)
    token = re.search(r"thk_[0-9A-Za-z]{9}_[0-9A-Za-z]{43}", made.text)
    assert (made.status, token is not None) == (200, True)
    assert made.headers["Cache-Control"] == "no-store"
    again = await visitor.act("/tokens", form)
    assert (again.status, "a valid token has this name" in again.text.lower()) == (422, True)
    listed = await visitor.look("/tokens")
    assert "airflow" in listed.text
    assert token is not None
    assert token[0] not in listed.body
    rows = await visitor.api.store.access.list_tokens(9)
    row = next(row for row in rows if row.name == "airflow")
    assert (row.scope, row.account, row.expires_at_ms) == (
        "submit",
        None,
        visitor.api.clock() + 90 * 86_400_000,
    )
    path = f"/tokens/{row.id}/revoke"
    assert "cannot be undone" in (await visitor.look(path)).text
    for _ in range(2):
        assert (await visitor.act(path)).headers["Location"] == "/tokens"
    actions = await visitor.look("/actions")
    assert actions.text.count("token.create") == 2  # the command line has made one to begin with
    assert actions.text.count("token.revoke") == 1
    done, _ = await visitor.api.store.access.actions_before(None, 9)
    theirs = {(a.action, a.actor.strip()) for a in done if a.subject == row.id}
    assert theirs == {("token.create", "operate"), ("token.revoke", "operate")}
    assert all(a.status == 200 for a in done if a.subject == row.id)


async def test_what_cannot_be_a_token_is_said_above_the_form(stranger: Visitor) -> None:
    await stranger.sign_in()
    good = {"name": "a", "scope": "read"}
    for wrong in ({"name": ""}, {"scope": "all"}, {"account": "nobody"}, {"expires": "soon"}):
        seen = await stranger.act("/tokens", good | wrong)
        assert (seen.status, seen.tree.css_first(".notice.loud") is not None) == (422, True), wrong


async def test_who_has_one_account_sees_and_makes_tokens_of_that_only(
    sqlite_store: Store, start_page: StartPage
) -> None:
    visitor = await start_page(sqlite_store, accounts={"eu": {"api_key": "k", "webhook_secret": "s"}})
    await visitor.sign_in()
    other = (await sqlite_store.access.list_tokens(1))[0]
    await visitor.sign_in("operate", "eu")
    seen = await visitor.look("/tokens")
    assert other.prefix not in seen.body
    assert (await visitor.look(f"/tokens/{other.id}/revoke")).status == 404
    assert (await visitor.act(f"/tokens/{other.id}/revoke")).status == 404
    assert (await visitor.act("/tokens", {"name": "mine", "scope": "operate"})).status == 200
    assert (await visitor.act("/tokens", {"name": "x", "scope": "read", "account": "default"})).status == 422
    assert {row.name: row.account for row in await sqlite_store.access.list_tokens(9)}["mine"] == "eu"
    assert "token.create" in (await visitor.look("/actions")).text
    shown = await visitor.api.ask("/v1/actions", scope="read", account="eu")
    assert [row["action"] for row in shown.document["data"]] == ["token.create"]
    for scope in ("read", "submit"):
        await visitor.sign_in(scope)
        assert (await visitor.look("/tokens")).status == 403
        assert (await visitor.act("/tokens", {"name": "x", "scope": "read"})).status == 403
        assert (await visitor.look("/actions")).status == 200


async def test_names_that_strangers_chose_are_text(stranger: Visitor) -> None:
    store, now_ms = stranger.api.store, stranger.api.clock()
    made = await create_token(store, HOSTILE, "operate", None, now_ms=now_ms, asker=BY_COMMAND)
    assert made is not None
    await stranger.send("/sign-in", {"token": made[1]})
    run_id = await stranger.api.run(name=HOSTILE)
    await stranger.act(f"/runs/{run_id}/pause")
    paths = ["/tokens", "/actions", "/bulk", f"/tokens/{made[0].id}/revoke", f"/runs/{run_id}/cancel"]
    for path in paths:
        seen = await stranger.look(path)
        assert seen.status == 200, path
        assert "<script>alert" not in seen.body, path
        assert all(node.attributes.get("src") for node in seen.tree.css("script")), path
        assert not [n for n in seen.tree.css("*") if any(a.startswith("on") for a in n.attributes)], path
