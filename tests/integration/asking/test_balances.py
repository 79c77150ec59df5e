"""The balance that comes with an answer is kept: it is fresh, which `/v1/credits` is not."""

from decimal import Decimal

import sqlalchemy as sa

from app.provider.sync import read_sync
from app.store import Store
from app.store.tables import balances
from tests.clock import SteppedClock
from tests.integration.asking.asking import emulator, question, served


async def test_the_balance_of_an_answer_is_kept(store: Store, clock: SteppedClock) -> None:
    async with served(store, clock, emulator("2026", plan="lite")) as asking:
        await asking(question())

    async def rows(connection: object) -> list[tuple[object, ...]]:
        c = balances.c
        query = sa.select(c.account, c.remaining, c.per_cycle, c.resets_at_ms, c.source)
        return [tuple(row) for row in await connection.execute(query)]  # type: ignore[attr-defined]

    assert await store.db.read(rows) == [("default", Decimal(37_500 - 7), None, None, "header")]


def test_a_balance_below_zero_is_read() -> None:
    headers = {"X-Credits-Remaining": "-12", "X-Credits-Charged": "7"}
    answer = read_sync(200, headers, b'{"success":true,"result":{"text":"x"}}')
    assert (answer.remaining, answer.charged) == (Decimal(-12), Decimal(7))
    for odd in ("", "-", "--3", "1.5", "x", "-x"):
        assert read_sync(200, {"X-Credits-Remaining": odd}, b"{}").remaining is None
