"""Corruptions made by hand, each with the row and column under which verify must name it. Data; every one is
undone by rolling back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from app.store.tables import (
    account_entries,
    attempts,
    deliveries,
    findings,
    ledger,
    results,
    rollup_changes,
    run_rollup,
    runs,
    settle_sequence,
    spending_changes,
    submissions,
    task_metadata,
    task_repeats,
    tasks,
)
from app.store.write.inbox import pack
from tests.integration.verify.scene import FIVE, Scene

Statements = Sequence[Any]


def _rolled_up(scene: Scene, **figures: Any) -> dict[str, Any]:
    """A change of one cell."""
    cell = {"run_id": scene.run_id, "is_current": True, "task_type": "GROK", "state": "completed"}
    nothing = {"attempts": 0, "held": 0, "charged": 0, "estimate": 0}
    return cell | {"verdict": "matched"} | nothing | figures


@dataclass(frozen=True)
class Corruption:
    """One thing that somebody, or a fault, did to the rows."""

    name: str
    make: Callable[[Scene], Statements]
    table: str
    column: str
    key: Callable[[Scene], str] = lambda scene: ""
    """Must be in the key of the difference; empty: the key is a number that the database gave."""


def _task(name: str) -> Callable[[Scene], str]:
    return lambda scene: scene.ids[name]


def _delivery(name: str, n: int = 0) -> Callable[[Scene], str]:
    return lambda scene: scene.delivered[name][n]


def _set(table: sa.Table, name: str, *where: Any, **values: Any) -> Callable[[Scene], Statements]:
    column = table.c.id if table is tasks else table.c.task_id
    return lambda scene: [sa.update(table).where(column == scene.ids[name], *where).values(**values)]


def _gone(table: sa.Table, name: str, *where: Any) -> Callable[[Scene], Statements]:
    return lambda scene: [sa.delete(table).where(table.c.task_id == scene.ids[name], *where)]


def _change_delivery(name: str, n: int = 0, **values: Any) -> Callable[[Scene], Statements]:
    return lambda scene: [
        sa.update(deliveries).where(deliveries.c.id == scene.delivered[name][n]).values(**values)
    ]


def _rewrite(name: str, n: int, **report: Any) -> Callable[[Scene], Statements]:
    def make(scene: Scene) -> Statements:
        encoding, body = pack(scene.body(name, **report))
        return _change_delivery(name, n, encoding=encoding, body=body)(scene)

    return make


def _double(kind: str, index: str) -> Callable[[Scene], Statements]:
    names = [c.name for c in ledger.c if c.name != "id"]
    return lambda scene: [
        sa.text(f"DROP INDEX {index}"),
        sa.insert(ledger).from_select(
            names,
            sa.select(*(ledger.c[name] for name in names)).where(
                ledger.c.task_id == scene.ids["matched"], ledger.c.kind == kind
            ),
        ),
    ]


def _move(scene: Scene) -> Statements:
    closing = ledger.c.task_id == scene.ids["matched"], ledger.c.kind == "post"
    return [sa.update(ledger).where(*closing).values(task_id=scene.ids["submitted"])]


def _invent(scene: Scene) -> Statements:
    row = {
        "at_ms": scene.clock(),
        "run_id": scene.run_id,
        "task_id": scene.ids["matched"],
        "attempt": 1,
        "verdict": "overcharged",
        "expected": FIVE,
        "actual": Decimal(6),
        "detail": "completed",
        "delivery_id": scene.delivered["matched"][0],
    }
    return [sa.insert(findings).values(**row)]


def _misfile(scene: Scene) -> Statements:
    return _change_delivery("matched", task_id=scene.ids["submitted"])(scene)


def _one_more() -> Any:
    return sa.update(settle_sequence).values(value=settle_sequence.c.value + 1)


_LAST = sa.select(settle_sequence.c.value).scalar_subquery()
SEQ = "results", "seq"
POST, HOLD = ledger.c.kind == "post", ledger.c.kind == "hold"
SIX = Decimal(6)
ALLOCATION = account_entries.c.kind == "allocation"
NOBODY = "00000000-0000-7000-8000-000000000000"

CORRUPTIONS = [
    Corruption(
        "a delivery is deleted", _gone(deliveries, "matched"), "results", "delivery_id", _task("matched")
    ),
    Corruption("a result is deleted", _gone(results, "matched"), "results", "row", _task("matched")),
    Corruption("a post is deleted", _gone(ledger, "matched", POST), "ledger", "row", _task("matched")),
    Corruption("a hold is removed", _gone(ledger, "submitted"), "ledger", "row", _task("submitted")),
    Corruption("an amount is changed", _set(ledger, "matched", POST, credits=SIX), "ledger", "credits"),
    Corruption("a post is doubled", _double("post", "uq_ledger_closing"), "ledger", "row"),
    Corruption("a hold is doubled", _double("hold", "uq_ledger_hold"), "ledger", "row"),
    Corruption("a closing entry is moved to another task", _move, "ledger", "row", _task("matched")),
    Corruption("a post is turned into a void", _set(ledger, "matched", POST, kind="void"), "ledger", "kind"),
    Corruption("an entry is of no kind", _set(ledger, "matched", POST, kind="refund"), "ledger", "kind"),
    Corruption("an entry is of another run", _set(ledger, "matched", run_id=NOBODY), "ledger", "run_id"),
    Corruption(
        "the reason of a post is edited", _set(ledger, "clusters", POST, reason="because"), "ledger", "reason"
    ),
    Corruption("an entry is of no task", _set(ledger, "matched", POST, task_id=NOBODY), "ledger", "task_id"),
    Corruption(
        "a webhook's charge is altered",
        _rewrite("matched", 0, charged=6),
        "tasks",
        "credits_charged",
        _task("matched"),
    ),
    Corruption(
        "a webhook is altered and its signature with it kept",
        _rewrite("matched", 0, response={"text": "on matched"}),
        "deliveries",
        "signature",
        _delivery("matched"),
    ),
    Corruption(
        "a poll is altered", _rewrite("filled", 1, charged=6), "tasks", "credits_charged", _task("filled")
    ),
    Corruption(
        "a body is cut",
        _change_delivery("matched", body=b"\x28\xb5\x2f\xfd\x00"),
        "deliveries",
        "body",
        _delivery("matched"),
    ),
    Corruption(
        "a body is of another encoding",
        _change_delivery("matched", encoding="identity"),
        "deliveries",
        "body",
        _delivery("matched"),
    ),
    Corruption(
        "a signature is cleared",
        _change_delivery("matched", signature=None),
        "deliveries",
        "signature",
        _delivery("matched"),
    ),
    Corruption(
        "a delivery came a day later",
        _change_delivery("duplicate", 1, received_at_ms=10**12),
        "deliveries",
        "received_at_ms",
        _delivery("duplicate", 1),
    ),
    Corruption("a delivery is another task's", _misfile, "deliveries", "task_id", _delivery("matched")),
    Corruption(
        "a delivery is another attempt's",
        _change_delivery("retried", 0, attempt=2),
        "deliveries",
        "attempt",
        _delivery("retried"),
    ),
    Corruption(
        "a delivery waits again",
        _change_delivery("matched", state="new"),
        "deliveries",
        "state",
        _delivery("matched"),
    ),
    Corruption(
        "an effect is flipped",
        _change_delivery("duplicate", 1, effect="settled"),
        "deliveries",
        "effect",
        _delivery("duplicate", 1),
    ),
    Corruption(
        "a result's hash is altered",
        _set(results, "matched", answer_sha256=bytes(32)),
        "results",
        "answer_sha256",
        _task("matched"),
    ),
    Corruption(
        "the length of an answer's text is altered",
        _set(results, "matched", answer_chars=3),
        "results",
        "answer_chars",
        _task("matched"),
    ),
    Corruption(
        "the size of a reused answer is altered",
        lambda scene: [
            sa.update(results)
            .where(results.c.task_id.in_(sa.select(tasks.c.id).where(tasks.c.reused_from.is_not(None))))
            .values(answer_bytes=1)
        ],
        "results",
        "answer_bytes",
    ),
    Corruption("a result loses its number", _set(results, "matched", seq=None), *SEQ, _task("matched")),
    Corruption("a result has a number to come", _set(results, "matched", seq=10**6), *SEQ, _task("matched")),
    Corruption(
        "two results have one number",
        lambda scene: [sa.text("DROP INDEX uq_results_seq"), *_set(results, "matched", seq=3)(scene)],
        *SEQ,
        _task("matched"),
    ),
    Corruption(
        "a result is moved behind that of the retry",
        lambda scene: [_one_more(), *_set(results, "retried", results.c.attempt == 1, seq=_LAST)(scene)],
        *SEQ,
        _task("retried"),
    ),
    Corruption(
        "an answer is moved behind its reuse",
        lambda scene: [_one_more(), *_set(results, "matched", seq=_LAST)(scene)],
        *SEQ,
    ),
    Corruption(
        "a result's status is flipped",
        _set(results, "matched", status="failed"),
        "results",
        "status",
        _task("matched"),
    ),
    Corruption(
        "a state is flipped", _set(tasks, "matched", state="failed"), "tasks", "state", _task("matched")
    ),
    Corruption(
        "an expired task is completed",
        _set(tasks, "expired", state="completed"),
        "tasks",
        "state",
        _task("expired"),
    ),
    Corruption(
        "a verdict is changed",
        _set(tasks, "overcharged", verdict="matched"),
        "tasks",
        "verdict",
        _task("overcharged"),
    ),
    Corruption(
        "a charge is nulled",
        _set(tasks, "matched", credits_charged=None),
        "tasks",
        "credits_charged",
        _task("matched"),
    ),
    Corruption(
        "an unknown charge becomes 0",
        _set(tasks, "unknown", credits_charged=Decimal(0)),
        "tasks",
        "credits_charged",
        _task("unknown"),
    ),
    Corruption(
        "a promise is changed",
        _set(tasks, "matched", credits_to_charge=SIX),
        "tasks",
        "credits_to_charge",
        _task("matched"),
    ),
    Corruption(
        "an attempt is renumbered", _set(tasks, "matched", attempt=2), "tasks", "attempt", _task("matched")
    ),
    Corruption(
        "a key is replaced",
        _set(tasks, "matched", idempotency_key="mine"),
        "tasks",
        "idempotency_key",
        _task("matched"),
    ),
    Corruption(
        "a prompt is changed",
        _set(tasks, "matched", payload='{"prompt":"other"}'),
        "tasks",
        "fingerprint",
        _task("matched"),
    ),
    Corruption(
        "a task is settled before its report came",
        _set(tasks, "matched", settled_at_ms=10**12),
        "tasks",
        "settled_at_ms",
        _task("matched"),
    ),
    Corruption(
        "a task is deleted",
        lambda scene: [sa.delete(tasks).where(tasks.c.id == scene.ids["overcharged"])],
        "ledger",
        "task_id",
    ),
    Corruption("an old attempt is deleted", _gone(attempts, "retried"), "tasks", "attempt", _task("retried")),
    Corruption(
        "an old attempt's charge is changed",
        _set(attempts, "double", credits_charged=SIX),
        "attempts",
        "credits_charged",
        _task("double"),
    ),
    Corruption(
        "a submit response is changed",
        _set(submissions, "matched", credits_to_charge=SIX),
        "tasks",
        "credits_to_charge",
        _task("matched"),
    ),
    Corruption(
        "a submit response is deleted", _gone(submissions, "submitted"), "tasks", "state", _task("submitted")
    ),
    Corruption(
        "a finding is deleted", _gone(findings, "overcharged"), "findings", "row", _task("overcharged")
    ),
    Corruption("a finding is invented", _invent, "findings", "row"),
    Corruption(
        "a finding is softened",
        _set(findings, "overcharged", actual=SIX),
        "findings",
        "row",
        _task("overcharged"),
    ),
    Corruption("a conflict is deleted", _gone(findings, "conflict"), "findings", "row", _task("conflict")),
    Corruption("a double charge is hidden", _gone(findings, "double"), "findings", "row", _task("double")),
    Corruption(
        "a repriced task is hidden", _gone(findings, "repriced"), "findings", "row", _task("repriced")
    ),
    Corruption(
        "an unmatched delivery is hidden",
        lambda scene: [sa.delete(findings).where(findings.c.verdict == "unmatched")],
        "findings",
        "row",
        _delivery("stranger"),
    ),
    Corruption(
        "own columns are of a record that is no task",
        lambda scene: [sa.insert(task_metadata).values(run_id=scene.run_id, ordinal=999, line=0)],
        "task_metadata",
        "ordinal",
        lambda scene: f"{scene.run_id}.999",
    ),
    Corruption(
        "samples are of a record that is no task",
        lambda scene: [sa.insert(task_repeats).values(run_id=scene.run_id, first_ordinal=999, repeats=2)],
        "task_repeats",
        "ordinal",
        lambda scene: f"{scene.run_id}.999",
    ),
    Corruption(
        "an adjustment is edited",
        _set(account_entries, "overcharged", credits=FIVE),
        "account_entries",
        "credits",
    ),
    Corruption(
        "an adjustment loses its reason",
        _set(account_entries, "overcharged", reason=" "),
        "account_entries",
        "reason",
    ),
    Corruption(
        "an adjustment is another account's",
        _set(account_entries, "overcharged", account="eu"),
        "account_entries",
        "account",
    ),
    Corruption(
        "an allocation is edited",
        lambda scene: [sa.update(account_entries).where(ALLOCATION).values(credits=FIVE)],
        "account_entries",
        "credits",
    ),
    Corruption(
        "what a run spent is written by hand",
        lambda scene: [sa.insert(spending_changes).values(run_id=scene.run_id, credits=FIVE)],
        "run_spending",
        "credits",
        lambda scene: scene.run_id,
    ),
    Corruption(
        "a count of a run is written by hand",
        lambda scene: [sa.insert(rollup_changes).values(_rolled_up(scene, attempts=1))],
        "run_rollup",
        "attempts of GROK completed matched",
        lambda scene: scene.run_id,
    ),
    Corruption(
        "credits of attempts that a retry replaced are written by hand",
        lambda scene: [sa.insert(rollup_changes).values(_rolled_up(scene, is_current=False, charged=FIVE))],
        "run_rollup",
        "charged of replaced GROK completed matched",
        lambda scene: scene.run_id,
    ),
    Corruption(
        "what is kept of a run is deleted",
        lambda scene: [sa.delete(run_rollup), sa.delete(rollup_changes), sa.update(runs).values(name="r")],
        "run_rollup",
        "attempts of AIMODE completed explained",
        lambda scene: scene.run_id,
    ),
]
