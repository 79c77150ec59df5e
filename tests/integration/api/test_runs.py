"""/v1/runs: pages, one run, and what is asked again."""

from multidict import CIMultiDict

from app.domain.run_reason import BY_HAND
from app.domain.task import RunState
from tests.integration.api.asking import Api


async def test_pages_have_every_run_once_while_runs_are_added(api: Api) -> None:
    made = [await api.run(f"run {n}") for n in range(5)]
    path, seen = "/v1/runs?limit=2", []
    while path:
        page = await api.ask(path)
        seen += [run["id"] for run in page.document["data"]]
        assert ("Link" in page.headers) == (page.document["next_cursor"] is not None)
        link = page.headers.get("Link", "")
        assert not link or link.endswith('; rel="next"')
        path = link[1:].partition(">")[0]
        await api.run("added meanwhile")
    assert seen == made[::-1]


async def test_a_run_as_it_stands(api: Api) -> None:
    run_id = await api.run(tasks=3)
    run = (await api.ask(f"/v1/runs/{run_id}")).document
    assert (run["id"], run["state"], run["budget"]) == (run_id, "running", "12.5")
    assert (run["counts"]["total"], run["counts"]["pending"]) == (3, 3)
    assert run["credits"] == {"estimated": "15", "held": "0", "charged": "0"}
    assert run["created_at"] == "2026-10-01T00:00:00.001Z"
    assert run["started_at"] is not None
    assert [run[f"{name}_at"] for name in ("paused", "stopped", "cancelled", "finished")] == [None] * 4


async def test_a_time_for_each_state(api: Api) -> None:
    """Of a run that is halted and goes on in each way, and is cancelled."""

    async def times(run_id: str) -> set[str]:
        run = (await api.ask(f"/v1/runs/{run_id}")).document
        names = ("created", "started", "paused", "stopped", "cancelled", "finished")
        return {name for name in names if run[f"{name}_at"] is not None}

    runs, accounts = api.store.runs, api.store.accounts
    loading = await runs.create_run(name="x", source="-", budget=None, now_ms=api.clock.advance(1))
    assert await times(loading) == {"created"}
    assert await api.store.loading.finish_loading(loading, sha256="0", bad_lines=0, last=0)
    assert await times(loading) >= {"created", "started"}
    by_hand, of_account = await api.run("a"), await api.run("b", account="eu")
    await runs.halt_run_if_running(by_hand, RunState.PAUSED, BY_HAND)
    await runs.resume_run_if_halted(by_hand)
    await runs.halt_run_if_running(by_hand, RunState.STOPPED, BY_HAND)
    assert await times(by_hand) == {"created", "started", "paused", "stopped"}
    await accounts.halt_account_if_running("eu", RunState.STOPPED, BY_HAND)
    assert await times(of_account) == {"created", "started", "stopped"}
    await runs.cancel_run(of_account, "by hand")
    assert await times(of_account) >= {"created", "started", "stopped", "cancelled"}
    poor = await api.run("c", tasks=3)
    await api.store.submissions.claim_pending(
        limit=9, claim="x", now_ms=api.clock(), lease_until_ms=api.clock() + 1
    )
    assert await times(poor) == {"created", "started", "paused"}, "its budget is for two of its tasks"


async def test_a_run_of_which_nothing_moved_is_not_sent_again(api: Api) -> None:
    run_id = await api.run()
    etag = (await api.ask(f"/v1/runs/{run_id}")).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await api.ask(f"/v1/runs/{run_id}", headers={"If-None-Match": known})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    await api.store.runs.cancel_run(run_id, "by hand")
    moved = await api.ask(f"/v1/runs/{run_id}", headers={"If-None-Match": etag})
    assert (moved.status, moved.document["state"]) == (200, "cancelled")


async def test_what_is_asked_wrongly_is_named_with_what_is_right(api: Api) -> None:
    for query, field, code in (
        ("limit=0", "limit", "greater_than_equal"),
        ("limit=1001", "limit", "less_than_equal"),
        ("limit=1_0", "limit", "wrong_value"),
        ("limit=ten", "limit", "wrong_value"),
        ("limit=1&limit=2", "limit", "given_twice"),
        ("cursor=abc", "cursor", "invalid_cursor"),
        ("cursor=WyJydW5zIiwxXQ", "cursor", "invalid_cursor"),
        ("cursor=a%2Bb", "cursor", "string_pattern_mismatch"),
        ("state=running", "state", "unknown_parameter"),
        ("%3Cscript%3E=1", "(not a name)", "unknown_parameter"),
    ):
        answered = await api.ask(f"/v1/runs?{query}")
        (error,) = answered.document["errors"]
        assert (answered.status, error["field"], error["code"]) == (422, field, code), query
        assert error["remedy"]
    unknown = (await api.ask("/v1/runs?state=running")).document["errors"][0]
    assert "limit, cursor" in unknown["remedy"]


async def test_what_is_no_id_is_not_found(api: Api) -> None:
    for path in ("latest", "x", "0", "%00", "a" * 36, "01a21df5-9519-7540-8ad4-85d84a434300"):
        assert (await api.ask(f"/v1/runs/{path}")).status == 404, path


async def test_head_is_get_without_its_body(sqlite_api: Api) -> None:
    run_id = await sqlite_api.run()
    for path in (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/results", "/openapi.json"):
        got, headed = await sqlite_api.ask(path), await sqlite_api.ask(path, "HEAD")
        assert (headed.status, headed.body) == (200, b""), path
        assert headed.headers.get("ETag") == got.headers.get("ETag")
    refused = await sqlite_api.ask(f"/v1/runs/{run_id}", "PUT")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


async def test_tags_on_several_lines_are_one_list(sqlite_api: Api) -> None:
    path = f"/v1/runs/{await sqlite_api.run()}"
    tag = (await sqlite_api.ask(path)).headers["ETag"]
    token = f"Bearer {await sqlite_api.token()}"
    headers = CIMultiDict([("Authorization", token), ("If-None-Match", '"x"'), ("If-None-Match", f"W/{tag}")])
    async with sqlite_api.client.get(path, headers=headers) as response:
        assert response.status == 304
