"""Books in dicts. Parsing and deciding are the product's own; only storing is simple here, so that ten
thousand histories take minutes. The same histories run on the real store too.

A history takes 11 ms of processor time here, 157 ms on SQLite in a file, and 124 ms on one in memory that
waits for no disk: what is left is the statements. On it the few hundred of the short form, which search for
a protection that was taken out, would take half a minute more.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from app.domain.delivery import ParsedDelivery
from app.domain.reconciliation import repriced_detail
from app.domain.send_outcome import Answer
from app.domain.settlement import Attempt, Effect, Settlement, Source, StoredAnswer
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import (
    RETRYABLE_STATES,
    Money,
    TaskSpec,
    TaskState,
    idempotency_key,
    new_id,
    parse_idempotency_key,
)
from app.domain.verdicts import Verdict
from app.provider.wire import read_report
from app.services import settle as service
from tests.histories.books import SAFE_MS, AttemptRow, FindingRow, LedgerRow, Rows

SENDING = (TaskState.PENDING, TaskState.SUBMITTING)


@dataclass
class _Row:
    """An attempt and what only sending needs."""

    attempt: Attempt
    sends: int = 0
    first_sent_ms: int | None = None
    not_before_ms: int = 0


class MemoryBooks:
    """Satisfies Books."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], _Row] = {}
        self._current: dict[str, int] = {}
        self._responses: dict[tuple[str, int], bytes] = {}
        self._ledger: list[LedgerRow] = []
        self._findings: list[FindingRow] = []
        self._deliveries = 0

    def load(self, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int) -> None:
        for spec, estimate in specs:
            task_id = new_id(now_ms, random_bits=spec.ordinal)
            attempt = Attempt(
                task_id=task_id,
                run_id="run",
                attempt=1,
                current=True,
                state=TaskState.PENDING,
                money=Money.NONE,
                task_type=spec.task_type,
                payload_json=json.dumps(spec.payload),
                estimate=estimate,
                held=None,
                to_charge=None,
                charged=None,
                provider_task_id=None,
                verdict=None,
                reported=None,
            )
            self._attempts[task_id, 1] = _Row(attempt)
            self._current[task_id] = 1

    def claim(self, limit: int, now_ms: int) -> list[ClaimedTask]:
        for row in self._attempts.values():
            if row.attempt.state is TaskState.PENDING and (row.first_sent_ms or now_ms) <= now_ms - SAFE_MS:
                row.attempt = replace(row.attempt, state=TaskState.EXPIRED)
        due = [
            row
            for row in self._attempts.values()
            if row.attempt.state is TaskState.PENDING and row.not_before_ms <= now_ms
        ]
        return [self._claim(row, now_ms) for row in due[:limit]]

    def _claim(self, row: _Row, now_ms: int) -> ClaimedTask:
        a = row.attempt = replace(row.attempt, state=TaskState.SUBMITTING)
        row.sends += 1
        row.first_sent_ms = row.first_sent_ms or now_ms
        return ClaimedTask(
            a.task_id,
            a.run_id,
            a.attempt,
            idempotency_key(a.task_id, a.attempt),
            a.task_type,
            a.payload_json,
            1,
            a.estimate,
            row.sends,
            row.first_sent_ms,
            "claim",
        )

    def record(self, ended: Submission) -> None:
        row = self._attempts[ended.task.id, ended.task.attempt]
        if ended.answer in (Answer.ACCEPTED, Answer.EXISTS):
            self._accept(row, ended)
        elif row.attempt.state is TaskState.SUBMITTING:
            row.attempt = replace(row.attempt, state=TaskState.PENDING)
            row.not_before_ms = ended.not_before_ms
            if ended.answer is Answer.NO_CREDITS:
                row.sends -= 1
                row.first_sent_ms = row.first_sent_ms if row.sends else None

    def _accept(self, row: _Row, ended: Submission) -> None:
        a, to_charge = row.attempt, ended.credits_to_charge
        key = idempotency_key(a.task_id, a.attempt)
        if a.state in SENDING and a.money is Money.NONE:
            held = to_charge if to_charge is not None else a.estimate
            row.attempt = replace(
                a,
                state=TaskState.SUBMITTED,
                money=Money.HELD,
                held=held,
                to_charge=to_charge,
                provider_task_id=ended.provider_task_id,
            )
            self._ledger.append(LedgerRow(key, "hold", held, ended.at_ms, None))
        else:
            row.attempt = replace(
                a,
                to_charge=to_charge if a.to_charge is None else a.to_charge,
                provider_task_id=a.provider_task_id or ended.provider_task_id,
            )
        if to_charge is not None and to_charge != a.estimate and not self._is_noted(key):
            detail = repriced_detail(
                a.task_type, json.loads(a.payload_json), estimate=a.estimate, to_charge=to_charge
            )
            self._findings.append(FindingRow(key, Verdict.REPRICED, detail))

    def _is_noted(self, key: str) -> bool:
        return any(one.key == key and one.verdict is Verdict.REPRICED for one in self._findings)

    def receive(self, bodies: Sequence[bytes], source: Source, now_ms: int) -> None:
        for body in bodies:
            self._deliveries += 1
            parsed = ParsedDelivery(str(self._deliveries), source, now_ms, read_report(body))
            key = self._find(parsed)
            if key is None:
                detail = f"provider task {parsed.report.provider_task_id}"
                self._findings.append(FindingRow(None, Verdict.UNMATCHED, detail))
                continue
            row = self._attempts[key]
            others = (self._attempts[key[0], n] for n in range(1, self._current[key[0]] + 1) if n != key[1])
            before = replace(row.attempt, charged_elsewhere=any(one.attempt.charged for one in others))
            taken = self._responses.get(key)
            stored = None if taken is None else StoredAnswer(hashlib.sha256(taken).digest(), taken)
            self._apply(row, service.decide_delivery(parsed, before, stored), parsed, now_ms)

    def _find(self, parsed: ParsedDelivery) -> tuple[str, int] | None:
        key = parse_idempotency_key(parsed.report.idempotency_key or "")
        return key if key in self._attempts else None

    def _apply(self, row: _Row, settlement: Settlement, parsed: ParsedDelivery, now_ms: int) -> None:
        after = settlement.after
        key = idempotency_key(after.task_id, after.attempt)
        row.attempt = after
        if settlement.effect is Effect.SETTLED:
            self._responses[after.task_id, after.attempt] = parsed.report.response
        if settlement.hold is not None:
            self._ledger.append(LedgerRow(key, "hold", settlement.hold, now_ms, None))
        if settlement.close is Money.POSTED:
            assert after.charged is not None
            self._ledger.append(LedgerRow(key, "post", after.charged, now_ms, settlement.reason))
        elif settlement.close is Money.VOIDED:
            assert after.held is not None
            self._ledger.append(LedgerRow(key, "void", after.held, now_ms, None))
        self._findings += [FindingRow(key, f.verdict, f.detail) for f in settlement.findings]

    def give_up(self, key: str) -> None:
        parsed = parse_idempotency_key(key)
        assert parsed is not None
        row = self._attempts[parsed]
        if row.attempt.state is TaskState.SUBMITTED:
            row.attempt = replace(row.attempt, state=TaskState.EXPIRED)

    def retry(self, task_id: str, now_ms: int) -> None:
        n = self._current[task_id]
        row = self._attempts[task_id, n]
        assert row.attempt.state in RETRYABLE_STATES
        fresh = replace(
            row.attempt,
            attempt=n + 1,
            state=TaskState.PENDING,
            money=Money.NONE,
            held=None,
            to_charge=None,
            charged=None,
            provider_task_id=None,
            verdict=None,
            reported=None,
            charged_elsewhere=False,
        )
        row.attempt = replace(row.attempt, current=False)
        self._attempts[task_id, n + 1] = _Row(fresh, not_before_ms=now_ms)
        self._current[task_id] = n + 1

    def rows(self) -> Rows:
        attempts = [
            AttemptRow(
                idempotency_key(*key),
                key[0],
                row.attempt.state,
                row.attempt.money,
                row.attempt.task_type,
                row.attempt.estimate,
                row.attempt.held,
                row.attempt.to_charge,
                row.attempt.charged,
                row.attempt.verdict,
                row.attempt.provider_task_id,
                row.first_sent_ms,
            )
            for key, row in self._attempts.items()
        ]
        return Rows(attempts, list(self._ledger), list(self._findings))
