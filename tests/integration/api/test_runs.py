"""/v1/runs: pages, one run, and what is asked again."""

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
