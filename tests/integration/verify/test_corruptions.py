"""Books in which everything happened: nothing differs. Then each corruption is found, and named."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from app.domain.verification.signature_checks import SignatureStatus
from app.provider.wire import read_answer
from app.services.verify.books import VerifyTotals
from app.store import Database, Store
from app.store.read.verification import BooksSnapshot, open_snapshot
from tests.books import check_books, read_books
from tests.integration.verify.corruptions import CORRUPTIONS, Corruption
from tests.integration.verify.scene import NAMES, SECRET, Scene, make_scene, verified


async def test_each_corruption_is_found_and_named(store: Store, subtests: pytest.Subtests) -> None:
    scene = await make_scene(store)
    await _a_retired_secret_leaves_deliveries_unchecked(scene)
    await _each_is_found(scene, CORRUPTIONS, subtests)


async def test_one_of_each_table_is_found_in_postgresql(postgres_url: str, subtests: pytest.Subtests) -> None:
    store = Store(Database(postgres_url), read_answer)
    try:
        await _each_is_found(await make_scene(store), {c.table: c for c in CORRUPTIONS}.values(), subtests)
    finally:
        await store.close()


async def _each_is_found(scene: Scene, corruptions: Iterable[Corruption], subtests: pytest.Subtests) -> None:
    await _nothing_differs(scene)
    for corruption in corruptions:
        with subtests.test(corruption.name):
            totals = await _corrupted(scene, corruption.make(scene))
            named = [
                d
                for d in totals.differences
                if (d.table, d.column) == (corruption.table, corruption.column)
                and corruption.key(scene) in d.key
            ]
            assert named, f"found instead: {[str(d) for d in totals.differences]}"
            assert all(d.stands != d.should_be and d.why for d in totals.differences)
    await _nothing_differs(scene)


async def _a_retired_secret_leaves_deliveries_unchecked(scene: Scene) -> None:
    webhooks = sum(1 for row in (await read_books(scene.store)).deliveries if row["source"] == "delivery")
    async with open_snapshot(scene.store.db) as snapshot:
        rotated = await verified(snapshot, "whsec_of_today")
        assert (rotated.differences, rotated.counts["signatures_unchecked"]) == ([], webhooks)
        both = await verified(snapshot, "whsec_of_today", SECRET)
        assert (both.counts["signatures_fit"], both.counts["signatures_unchecked"]) == (webhooks, 0)


async def _nothing_differs(scene: Scene) -> None:
    books = await read_books(scene.store)
    check_books(books)
    async with open_snapshot(scene.store.db) as snapshot:
        totals = await verified(snapshot)
    assert not totals.differences, "\n".join(map(str, totals.differences))
    assert totals.counts["tasks"] == len(books.tasks) == len(NAMES) + 3
    assert totals.counts["order_decided"] == 1, "the conflict of charges, and nothing else, depends on order"
    assert {kind: totals.sums[kind] for kind in ("hold", "post", "void")} == {
        kind: sum((e["credits"] for e in books.ledger if e["kind"] == kind), Decimal(0))
        for kind in ("hold", "post", "void")
    }
    verdicts = Counter(row["verdict"] for row in books.findings)
    assert verdicts.keys() >= {
        "overcharged",
        "undercharged",
        "conflict",
        "repriced",
        "double_charged",
        "unmatched",
    }
    assert totals.signatures["default"].counts[SignatureStatus.NOT_SIGNED] == 2, (
        "the poll and the sync answer"
    )


async def _corrupted(scene: Scene, statements: Any) -> VerifyTotals:
    """What verify finds after the statements, which are then undone."""
    db = scene.store.db
    async with db.engine.connect() as connection:
        changed = 0
        for statement in statements:
            changed = (await connection.execute(statement)).rowcount
        assert changed, "the corruption changed nothing"
        totals = await verified(BooksSnapshot(db, connection))
        await connection.rollback()
    return totals
