"""Where results are pushed to, by the API."""

from collections import Counter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import hash_of, webhook_secret
from app.domain.relay.message import NewEndpoint, new_secret
from app.services.access import create_token
from app.store.tables import relay_endpoints, relay_runs, relay_tasks, runs
from tests.integration.api.asking import Api
from tests.integration.api.test_batches import create, lines, request, upload


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


async def pushed(api: Api) -> Counter[tuple[str, str, bool]]:
    """(kind of what is pushed and its scheme, URL, whether with the token's secret) -> how much of it."""
    secret = webhook_secret(hash_of(await api.token()))

    async def read(connection: AsyncConnection) -> Counter[tuple[str, str, bool]]:
        e, found = relay_endpoints.c, Counter[tuple[str, str, bool]]()
        for table, kind in ((relay_runs, runs.c.source), (relay_tasks, sa.literal("task"))):
            query = sa.select(kind, e.url, e.secret).join(table, table.c.endpoint_id == e.id)
            if table is relay_runs:
                query = query.join(runs, runs.c.id == relay_runs.c.run_id)
            query = query.where(e.scheme == ("standard" if table is relay_runs else "provider"))
            found.update((row[0], row[1], row[2] == secret) for row in await connection.execute(query))
        return found

    return await api.store.db.read(read)


async def test_what_a_token_brings_is_pushed_where_it_says(api: Api) -> None:
    ours, own = "https://example.com/all", "https://example.com/own"
    made = await create_token(api.store, "shop", "operate", None, now_ms=api.clock(), webhook_url=ours)
    assert made is not None
    api.tokens["operate", None] = made[1]
    new = {"task_type": "GEMINI", "country": "DE", "prompts": ["x"]}
    answers = [
        (await api.ask("/v1/runs", "POST", json=new | more)).document["webhook"]
        for more in ({}, {"webhook_url": own}, {"webhook_url": ""})
    ]
    assert [answer and answer["url"] for answer in answers] == [ours, own, None]
    assert (answers[0]["secret"], answers[1]["secret"][:6]) == (None, "whsec_")
    single = {"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}
    for more in ({}, {"webhook": {"url": own}}):
        assert (await api.ask("/v1/async/task", "POST", json=single | more)).status == 200
    assert (await api.ask("/v1/async/task/batch", "POST", json=[single, single])).status == 200
    file_id = await upload(api, lines(request(1)))
    assert (await create(api, file_id)).status == 200
    assert await pushed(api) == {
        ("api", ours, True): 1,
        ("api", own, False): 1,
        ("task", ours, True): 3,
        ("task", own, True): 1,
        ("batch file monday.jsonl", ours, True): 1,
    }
