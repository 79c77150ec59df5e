"""Where results are pushed to, by the API."""

from app.domain.relay.message import NewEndpoint, new_secret
from tests.integration.api.asking import Api


async def pushed_run(api: Api, url: str, account: str = "default") -> str:
    """A run whose results go to a URL; the endpoint's id."""
    await api.store.runs.create_run(
        name="monday",
        source="-",
        budget=None,
        now_ms=api.clock.advance(1),
        account=account,
        push_to=NewEndpoint(url, new_secret()),
    )
    return (await api.store.relay.endpoints(limit=1))[0].id


async def test_endpoints_are_listed_page_by_page_without_secrets(api: Api) -> None:
    ids = [await pushed_run(api, f"https://example.com/{n}?token=hush5ecret") for n in range(3)]
    first = await api.ask("/v1/relay/endpoints?limit=2", scope="read")
    assert [row["id"] for row in first.document["data"]] == ids[:0:-1]
    rest = await api.ask(f"/v1/relay/endpoints?cursor={first.document['next_cursor']}", scope="read")
    assert [row["id"] for row in rest.document["data"]] == ids[:1]
    assert b"hush5ecret" not in first.body
    assert b"whsec_" not in first.body
    one = (await api.ask(f"/v1/relay/endpoints/{ids[0]}")).document
    assert (one["url"], one["runs"], one["taken"]) == ("https://example.com/0", ["monday"], 0)


async def test_what_waits_is_put_back_by_who_may_and_the_list_of_actions_says_so(api: Api) -> None:
    endpoint_id = await pushed_run(api, "https://example.com/x")
    path = f"/v1/relay/endpoints/{endpoint_id}/retry"
    assert (await api.ask(path, "POST", scope="submit")).status == 403
    done = await api.ask(path, "POST")
    assert (done.status, done.document) == (200, {"id": endpoint_id, "messages": 0})


async def test_an_endpoint_of_another_account_is_not_there(api: Api) -> None:
    endpoint_id = await pushed_run(api, "https://example.com/x", account="eu")
    path = f"/v1/relay/endpoints/{endpoint_id}"
    for named, method in ((path, "GET"), (f"{path}/retry", "POST")):
        assert (await api.ask(named, method, account="default")).status == 404
    assert (await api.ask("/v1/relay/endpoints", account="default")).document["data"] == []
