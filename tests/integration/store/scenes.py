"""Short ways to bring tasks into each state, and the invariants of the books read from the tables alone."""

import hashlib
import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import ParsedDelivery, RawDelivery
from app.domain.relay.message import NewEndpoint
from app.domain.send_outcome import Answer
from app.domain.settlement import (
    Attempt,
    Circumstances,
    Report,
    Settlement,
    Source,
    StoredAnswer,
    decide_settlement,
)
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import TaskSpec, new_id
from app.store import Store
from app.store.write.settlement import SettleCount

NOW = 1_790_812_800_000
LEASE_MS = 60_000
FIVE = Decimal(5)

_numbers = itertools.count(1)


async def start_run(
    store: Store,
    tasks: int = 1,
    *,
    budget: Decimal | None = None,
    estimate: Decimal = FIVE,
    now_ms: int = NOW,
    push_to: NewEndpoint | None = None,
) -> tuple[str, list[str]]:
    """A running run with CHATGPT tasks; (run id, task ids in order)."""
    run_id = await store.runs.create_run(
        name="run", source="-", budget=budget, now_ms=now_ms, push_to=push_to
    )
    specs = [TaskSpec(n, "CHATGPT", {"prompt": f"p{n}", "country": "US"}) for n in range(1, tasks + 1)]
    ids = await store.runs.add_tasks(run_id, [(spec, estimate) for spec in specs], now_ms)
    assert await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    return run_id, ids


async def claim(store: Store, limit: int = 100, *, token: str = "me", now_ms: int = NOW) -> list[ClaimedTask]:
    """Claim for a minute."""
    return await store.submissions.claim_pending(
        limit=limit, claim=token, now_ms=now_ms, lease_until_ms=now_ms + LEASE_MS
    )


def ended(task: ClaimedTask, answer: Answer = Answer.ACCEPTED, **changes: Any) -> Submission:
    """The end of one send; an accepted one names provider task `p-<ordinal>-<attempt>` and five credits."""
    accepted = {
        "provider_task_id": f"p-{task.id}-{task.attempt}",
        "credits_to_charge": FIVE,
        "http_status": 200,
    }
    base = Submission(task, answer, NOW + 1_000, next_poll_at_ms=NOW + 600_000)
    return replace(base, **((accepted if answer is Answer.ACCEPTED else {}) | changes))


async def submit_all(store: Store, *, now_ms: int = NOW) -> list[ClaimedTask]:
    """Claim everything due and record it as accepted."""
    claimed = await claim(store, 10_000, now_ms=now_ms)
    await store.submissions.record_submissions([ended(task) for task in claimed])
    return claimed


def report_on(task: ClaimedTask, charged: int | str | Decimal | None = 5, **changes: Any) -> Report:
    """A completed report that names the attempt's key."""
    base = Report(
        provider_task_id=f"p-{task.id}-{task.attempt}",
        idempotency_key=task.idempotency_key,
        completed=True,
        to_charge=FIVE,
        charged=None if charged is None else Decimal(charged),
        response=b'{"text":"yes"}',
    )
    return replace(base, **changes)


def failed_on(task: ClaimedTask, charged: int | None = 0, **changes: Any) -> Report:
    """A failed report that names the attempt's key."""
    base = {"completed": False, "response": b"null", "error_code": "FAILED", "error_message": "no answer"}
    return report_on(task, charged, **(base | changes))


async def receive(
    store: Store, *reports: Report, source: Source = Source.DELIVERY, now_ms: int = NOW + 2_000
) -> list[ParsedDelivery]:
    """Put reports into the inbox, as parsed as a settle job would have them."""
    parsed = [ParsedDelivery(new_id(now_ms, next(_numbers)), source, now_ms, report) for report in reports]
    raw = [RawDelivery(p.id, p.source, p.received_at_ms, _body(p)) for p in parsed]
    await store.inbox.store_deliveries(raw, due_at_ms=now_ms + 10_000)
    return parsed


def _body(parsed: ParsedDelivery) -> bytes:
    """As much of a report as its answer is read from."""
    return b'{"id":"%s","response":%s}' % (parsed.id.encode(), parsed.report.response)


async def apply(store: Store, parsed: Sequence[ParsedDelivery], *, now_ms: int = NOW + 3_000) -> SettleCount:
    """Settle deliveries; what fits no task may wait for a minute."""
    return await store.settlements.apply(parsed, decide, now_ms=now_ms, unmatched_until_ms=now_ms - 60_000)


async def settle_all(store: Store, *reports: Report, now_ms: int = NOW + 3_000, **how: Any) -> SettleCount:
    """Receive and settle."""
    return await apply(store, await receive(store, *reports, **how), now_ms=now_ms)


def decide(delivery: ParsedDelivery, attempt: Attempt, stored: StoredAnswer | None) -> Settlement:
    """The domain's decision, with responses compared byte by byte."""
    response = delivery.report.response
    hashed = hashlib.sha256(response).digest()
    same = stored is not None and (stored.content == response or stored.sha256 == hashed)
    circumstances = Circumstances(has_anothers_id=delivery.has_anothers_id)
    return decide_settlement(
        attempt, delivery.report, extra=Decimal(0), same_response=same, circumstances=circumstances
    )


async def rows(store: Store, query: str, **values: Any) -> list[dict[str, Any]]:
    """What a plain statement reads; ids as 32 digits and credits as millionths on every database."""

    async def work(connection: Any) -> list[dict[str, Any]]:
        found = await connection.execute(sa.text(query), values)
        return [{k: v.hex if isinstance(v, UUID) else v for k, v in row._mapping.items()} for row in found]

    return await store.db.read(work)


async def task_row(store: Store, task_id: str) -> dict[str, Any]:
    """One task's row."""
    found = await rows(store, "SELECT * FROM tasks")
    return next(row for row in found if row["id"] == task_id.replace("-", ""))


async def count(store: Store, query: str) -> int:
    """The number that a statement reads."""
    return int(next(iter((await rows(store, query))[0].values())))


_ATTEMPTS = """
    SELECT id AS task_id, attempt, state, money, credits_held, credits_to_charge, credits_charged, reported,
           verdict FROM tasks
    UNION ALL
    SELECT task_id, attempt, state, money, credits_held, credits_to_charge, credits_charged, reported, verdict
    FROM attempts
"""


async def check_books(store: Store) -> None:
    """Invariants 1 and 2 of the design, from the rows alone: each attempt is settled at most once, and the
    ledger equals what the attempts say."""
    attempts = {(row["task_id"], row["attempt"]): row for row in await rows(store, _ATTEMPTS)}
    entries: dict[tuple[Any, Any], dict[str, list[int]]] = {}
    for entry in await rows(store, "SELECT task_id, attempt, kind, credits FROM ledger"):
        kinds = entries.setdefault((entry["task_id"], entry["attempt"]), {})
        kinds.setdefault(entry["kind"], []).append(entry["credits"])
    assert entries.keys() <= attempts.keys(), "an entry without an attempt"
    for key, row in attempts.items():
        _check_attempt(row, entries.get(key, {}))
    results = {(row["task_id"], row["attempt"]) for row in await rows(store, "SELECT * FROM results")}
    assert results == {key for key, row in attempts.items() if row["reported"] is not None}
    settled = await rows(store, "SELECT task_id, attempt FROM deliveries WHERE effect = 'settled'")
    assert len(settled) == len(results), "settled twice, or by nobody"
    posts = sum(sum(kinds.get("post", [])) for kinds in entries.values())
    assert posts == sum(row["credits_charged"] or 0 for row in attempts.values())
    held = sum(sum(k["hold"]) for k in entries.values() if "hold" in k and not k.keys() & {"post", "void"})
    assert held == sum(row["credits_held"] or 0 for row in attempts.values() if row["money"] == "held")
    assert await spending_kept(store) == await spending_of_rows(store)


async def spending_kept(store: Store) -> dict[str, int]:
    """Run -> millionths that are kept as spent; runs that spent nothing are left out."""
    kept = await rows(
        store,
        "SELECT run_id, credits FROM run_spending UNION ALL SELECT run_id, credits FROM spending_changes",
    )
    return _sums(kept)


async def spending_of_rows(store: Store) -> dict[str, int]:
    """The same from the attempts, one by one."""
    found = await rows(
        store,
        """
        SELECT run_id, state, sends, credits_estimate, credits_held, credits_charged FROM tasks UNION ALL
        SELECT run_id, a.state, a.sends, a.credits_estimate, a.credits_held, a.credits_charged
        FROM attempts a JOIN tasks ON id = task_id
        """,
    )
    for row in found:
        known = [row[name] for name in ("credits_charged", "credits_held") if row[name] is not None]
        perhaps = row["sends"] > 0 and row["state"] not in ("rejected", "cancelled")
        row["credits"] = known[0] if known else row["credits_estimate"] * perhaps
    return _sums(found)


def _sums(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in found:
        sums[row["run_id"]] = sums.get(row["run_id"], 0) + row["credits"]
    return {run_id: credits for run_id, credits in sums.items() if credits}


def _check_attempt(row: dict[str, Any], kinds: dict[str, list[int]]) -> None:
    closing = kinds.get("post", []) + kinds.get("void", [])
    assert len(kinds.get("hold", [])) <= 1, row
    assert len(closing) <= 1, row
    assert (row["money"] == "none") == (not kinds), row
    assert (row["money"] == "held") == ("hold" in kinds and not closing), row
    assert (row["money"] == "posted") == ("post" in kinds), row
    assert (row["money"] == "voided") == ("void" in kinds), row
    if "hold" in kinds:
        assert kinds["hold"] == [row["credits_held"]], row
    if row["money"] == "held" and row["credits_to_charge"] is not None:
        assert row["credits_held"] == row["credits_to_charge"], row
    if "post" in kinds:
        assert kinds["post"] == [row["credits_charged"]], row
    if "void" in kinds:
        assert row["credits_charged"] == 0, row
    assert (row["verdict"] is not None) == (row["reported"] is not None), row
    if row["state"] in ("pending", "submitting", "submitted"):
        assert row["reported"] is None, row
    if row["state"] in ("completed", "failed"):
        assert row["reported"] == row["state"], row


async def execute(store: Store, *statements: sa.Executable | str) -> None:
    """By hand, in one transaction."""

    async def work(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.execute(sa.text(statement) if isinstance(statement, str) else statement)

    await store.db.write(work)
