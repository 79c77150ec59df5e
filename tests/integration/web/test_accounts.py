"""Several accounts: each has an address and a secret of its own, and vouches for its own tasks only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.config import ConfigError
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.provider.signature import answer_challenge
from app.provider.wire import read_report
from app.services.settle import settle
from app.store import Store
from app.web.server import METRICS, create_app
from tests.books import check_books, read_books
from tests.clock import SteppedClock
from tests.integration.store.scenes import FIVE
from tests.integration.web.receiving import LIMITS, PATH, SECRET, WakeDouble, delivery_body, signed, stored
from tests.scripted_provider import Accepted

EU_SECRET = "whsec_test_of_the_other_account"


@asynccontextmanager
async def receiving(store: Store, clock: SteppedClock) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    app = create_app(
        store,
        WakeDouble(),
        secrets=(SECRET,),
        extra_accounts={"eu": (EU_SECRET,)},
        limits=LIMITS,
        clock=clock,
    )
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "secret", "status", "account"),
    [
        (PATH, SECRET, 200, "default"),
        (f"{PATH}/eu", EU_SECRET, 200, "eu"),
        (PATH, EU_SECRET, 401, None),
        (f"{PATH}/eu", SECRET, 401, None),
        (f"{PATH}/us", SECRET, 404, None),
        (f"{PATH}/us", EU_SECRET, 404, None),
        (f"{PATH}/", SECRET, 404, None),
    ],
)
async def test_each_address_takes_its_own_secret_only(
    store: Store, clock: SteppedClock, path: str, secret: str, status: int, account: str | None
) -> None:
    body = delivery_body()
    async with receiving(store, clock) as client:
        answer = await client.post(path, data=body, headers=signed(body, clock() // 1000, secret=secret))
        assert answer.status == status
    assert [delivery.account for delivery in await stored(store)] == ([account] if account else [])


async def test_an_unknown_account_is_refused_before_its_body_is_sent(
    store: Store, clock: SteppedClock
) -> None:
    async with receiving(store, clock) as client:
        answer = await client.post(f"{PATH}/us", data=delivery_body(), expect100=True)
        assert (answer.status, await answer.json()) == (404, {"error": "unknown_account"})
        assert client.app is not None
        refused = client.app[METRICS].registry.get_sample_value(
            "tallyhook_deliveries_refused_total", {"reason": "unknown_account"}
        )
    assert refused == 1


async def test_each_address_proves_itself_with_its_own_secret(store: Store, clock: SteppedClock) -> None:
    challenge = "0123456789abcdef"
    async with receiving(store, clock) as client:
        for path, secret in ((PATH, SECRET), (f"{PATH}/eu", EU_SECRET)):
            answer = await client.get(path, params={"challenge": challenge})
            assert await answer.json() == {"answer": answer_challenge(secret, challenge)}
        assert (await client.get(f"{PATH}/us", params={"challenge": challenge})).status == 404


@pytest.mark.parametrize("secrets", [(), ("",)])
def test_no_account_is_served_without_a_secret(
    store: Store, clock: SteppedClock, secrets: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="webhook_secret of eu is not set"):
        create_app(
            store, WakeDouble(), secrets=(SECRET,), extra_accounts={"eu": secrets}, limits=LIMITS, clock=clock
        )


@pytest.mark.parametrize("by_key", [True, False])
@pytest.mark.parametrize(("came_at", "settles"), [("eu", True), ("default", False), (None, True)])
async def test_a_delivery_settles_tasks_of_its_own_account_only(
    store: Store, clock: SteppedClock, came_at: str | None, settles: bool, by_key: bool
) -> None:
    run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=clock(), account="eu")
    spec = TaskSpec(1, "CHATGPT", {"prompt": "x", "country": "US"})
    await store.runs.add_tasks(run_id, [(spec, FIVE)], clock())
    await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    (task,) = await store.submissions.claim_pending(
        account="eu", limit=1, claim="me", now_ms=clock(), lease_until_ms=clock() + 1
    )
    if not by_key:
        await _accepted(store, clock, task.id)
    accepted = Accepted("p-1", task.idempotency_key, FIVE, "COMPLETED", FIVE, {"text": "yes"})
    body = accepted.body() if by_key else accepted.body(idempotencyKey=None)
    raw = RawDelivery(new_id(clock()), Source.DELIVERY, clock(), body, account=came_at)
    await store.inbox.store_deliveries([raw], due_at_ms=clock())
    await settle(store, read_report, [raw.id], clock=clock, unmatched_ms=0)
    books = await read_books(store)
    check_books(books)
    assert [row["state"] == "completed" for row in books.tasks] == [settles]
    assert [row["verdict"] for row in books.findings] == ([] if settles else ["unmatched"])


async def _accepted(store: Store, clock: SteppedClock, task_id: str) -> None:
    """The provider's id of the task becomes known."""
    import sqlalchemy as sa

    from app.store.tables import tasks

    async def work(connection: object) -> None:
        await connection.execute(  # type: ignore[attr-defined]
            sa.update(tasks).where(tasks.c.id == task_id).values(provider_task_id="p-1")
        )

    await store.db.write(work)
