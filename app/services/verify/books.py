"""Verifying the books: everything that can be derived is derived again and compared; the rest is checked.

Reads one snapshot of the database and writes nothing: a correction is a new entry, made by a person.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.accounting.adjustment import account_entry
from app.domain.credits import from_micro, to_micro
from app.domain.retention import Kind, Receipt
from app.domain.settlement import Effect
from app.domain.task import parse_idempotency_key
from app.domain.time_format import DAY_MS
from app.domain.verification.comparison import Difference, display
from app.domain.verification.signature_checks import (
    UNVERIFIED_KEPT_MAX,
    SignatureStatus,
    SignatureSummary,
    UnverifiedDelivery,
)
from app.domain.verification.stored_rows import Orphan, Row, TaskBooks, VerifiedRun
from app.services.verify.evidence import Reading
from app.services.verify.sequence import misnumbered_differences
from app.services.verify.task import verify_task

if TYPE_CHECKING:
    from app.store.read.verification import BooksSnapshot

DIFFERENCES_KEPT_MAX = 10_000
"""Named; further ones are counted. Some 500 bytes each."""
SHA256_CHARS = 64
RunVerdict = tuple[str, str]
"""Run id, verdict."""


@dataclass(slots=True)
class PrunedResults:
    """Attempts of which a receipt covers the evidence."""

    at_ms: int
    """When it was pruned."""
    attempts: int = 0
    credits: Decimal = Decimal(0)
    """Charged for them, by their rows."""


@dataclass(slots=True)
class VerifyTotals:
    """What verifying came to so far; shares of several processes add up."""

    differences: list[Difference] = field(default_factory=list)
    differences_count: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Decimal] = field(default_factory=dict)
    signatures: dict[str, SignatureSummary] = field(default_factory=dict)
    """By account."""
    pruned: dict[str, PrunedResults] = field(default_factory=dict)
    """Id of a receipt -> what the books say of what it covers."""
    pruned_credits: Decimal = Decimal(0)
    """Charged for attempts of which evidence is gone, each once."""
    archived: Counter[str] = field(default_factory=Counter)
    """Receipt id -> millionths of credits charged for results that it counts, and whose bodies the archive
    has."""
    unfound: Counter[RunVerdict] = field(default_factory=Counter)
    """Attempts whose findings were pruned."""
    pruned_findings: dict[RunVerdict, int] = field(default_factory=dict)
    """Findings that were pruned, as is kept of their runs."""

    def differ(self, found: Iterable[Difference]) -> None:
        for difference in found:
            self.differences_count += 1
            if len(self.differences) < DIFFERENCES_KEPT_MAX:
                self.differences.append(difference)

    def sum_up(self, sums: dict[str, Decimal]) -> None:
        for name, credits in sums.items():
            self.sums[name] = self.sums.get(name, Decimal(0)) + credits

    def note(
        self, account: str, delivery_id: str, received_at_ms: int, signature_status: SignatureStatus
    ) -> None:
        self.signatures.setdefault(account, SignatureSummary()).note(
            delivery_id, received_at_ms, signature_status
        )

    def note_pruned(self, receipt_id: str, found: PrunedResults) -> None:
        stood = self.pruned.setdefault(receipt_id, PrunedResults(found.at_ms))
        stood.attempts += found.attempts
        stood.credits += found.credits

    def add(self, other: "VerifyTotals") -> None:
        """Another process's share."""
        self.differ(other.differences)
        self.differences_count += other.differences_count - len(other.differences)
        self.counts.update(other.counts)
        self.sum_up(other.sums)
        for account, signatures in other.signatures.items():
            self.signatures.setdefault(account, SignatureSummary()).add(signatures)
        self.archived.update(other.archived)
        self.pruned_credits += other.pruned_credits
        self.unfound.update(other.unfound)
        self.pruned_findings |= other.pruned_findings
        for receipt_id, found in other.pruned.items():
            self.note_pruned(receipt_id, found)


async def verify_share(
    snapshot: "BooksSnapshot",
    runs: Sequence[VerifiedRun],
    reading: Reading,
    *,
    share: int = 0,
    shares: int = 1,
) -> VerifyTotals:
    """Verify the tasks of some runs: of every `shares` pages the one at `share`. What is kept of the
    runs is checked by the first share."""
    totals = VerifyTotals(pruned_findings=await snapshot.pruned_findings() if runs else {})
    if share == 0:
        await _spending(snapshot, runs, totals)
        await _rollup(snapshot, runs, totals)
    for run in runs:
        async for page in snapshot.books(run, share, shares):
            await _mark_anothers(snapshot, page, reading)
            for books in page:
                done = verify_task(books, reading)
                totals.differ(done.differences)
                totals.counts.update(done.counts)
                totals.sum_up(done.sums)
                totals.pruned_credits += done.pruned_credits
                for verdict, count in done.unfound.items():
                    totals.unfound[run.id, verdict] += count
                for receipt, credits in done.archived:
                    totals.archived[receipt.id] += to_micro(credits)
                for receipt, credits in done.pruned:
                    totals.note_pruned(receipt.id, PrunedResults(receipt.at_ms, 1, credits))
                for account, delivery_id, received_at_ms, signature_status in done.signature_status:
                    totals.note(account, delivery_id, received_at_ms, signature_status)
    return totals


async def _mark_anothers(snapshot: "BooksSnapshot", page: Sequence[TaskBooks], reading: Reading) -> None:
    """Which conflicts name an id that another attempt has. Whether it had it already when the report came is
    in no row but the decision itself, so only where that was a conflict is the id a reason for one."""
    named: list[tuple[TaskBooks, Row, str]] = []
    for books in page:
        for row in books.deliveries:
            if row["effect"] == Effect.CONFLICT and (provider_task_id := _id_named(row, reading)) is not None:
                named.append((books, row, provider_task_id))
    owners = await snapshot.owners_of({provider_task_id for *_, provider_task_id in named}) if named else {}
    for books, row, provider_task_id in named:
        if owners.get(provider_task_id, set()) - {(books.task["id"], row["attempt"])}:
            books.anothers.add(row["id"])


async def verify_rest(
    snapshot: "BooksSnapshot", reading: Reading, *, account: str | None, default_account: str
) -> VerifyTotals:
    """What belongs to no task: deliveries that fit none, entries of the account, rows left behind.
    `default_account`: whose a delivery is that names none."""
    totals = VerifyTotals()
    async for page in snapshot.unfiled():
        rows = [row for row in page if account in (None, row["account"] or default_account)]
        await _unfiled(snapshot, rows, reading, totals, default_account)
    async for entry in snapshot.account_entries(account):
        totals.counts["account_entries"] += 1
        if entry["kind"] == "adjustment":
            totals.counts["adjustments"] += 1
            totals.sum_up({"adjusted": entry["credits"]})
        totals.differ(account_entry(entry))
    if account is None:  # whose a row without its task was, nobody can say
        totals.differ(_orphaned(orphan) for orphan in await snapshot.orphans())
        totals.differ(misnumbered_differences(await snapshot.misnumbered()))
        for receipt, left in await snapshot.left_of_receipts():
            totals.counts["receipts"] += 1
            totals.differ(_uncounted(receipt, left))
    return totals


def _uncounted(receipt: Receipt, left: int | None) -> Iterator[Difference]:
    """Rows of a day that went beside its receipt; `left`: how many still stand."""
    where = "receipts", receipt.id
    if receipt.kept is not None and left is not None and left < receipt.kept:
        why = "rows that stayed when their day was pruned are gone, and nothing says why"
        yield Difference(*where, "kept", display(receipt.kept), display(left), why)
    is_day = receipt.until_ms - receipt.from_ms == DAY_MS and receipt.from_ms % DAY_MS == 0
    if not is_day or receipt.row_count < 1 or len(receipt.sha256) != SHA256_CHARS:
        yield Difference(
            *where, "row", "no receipt of a day", "one", "altered: nothing writes such a receipt"
        )


async def _spending(snapshot: "BooksSnapshot", runs: Sequence[VerifiedRun], totals: VerifyTotals) -> None:
    """What is kept of each run as spent, which its budget is held to, against its attempts."""
    for run_id, stored, should_be in await snapshot.spending([run.id for run in runs]):
        why = "the sum of what its attempts are charged, hold, or may cost; docs/operations.md makes it anew"
        totals.differ(
            [Difference("run_spending", run_id, "credits", display(stored), display(should_be), why)]
        )


async def _rollup(snapshot: "BooksSnapshot", runs: Sequence[VerifiedRun], totals: VerifyTotals) -> None:
    """What is kept of each run's counts and credits, which everybody is shown, against its attempts."""
    why = "what its attempts come to; docs/operations.md lets it be counted anew"
    for found in await snapshot.rollup([run.id for run in runs]):
        where = "run_rollup", found.run_id, found.figure
        totals.differ([Difference(*where, display(found.kept), display(found.should_be), why)])


def conclude(totals: VerifyTotals, receipts: Iterable[Receipt] = ()) -> None:
    """The last differences: of the sums, and of signatures that fit nothing while their neighbours' do.
    `receipts`: those that all tasks were gone through for, in one snapshot with them."""
    known = list(receipts)
    for receipt in known:
        found = totals.pruned.get(receipt.id, PrunedResults(receipt.at_ms))
        charged = found.credits + from_micro(totals.archived[receipt.id])
        if receipt.kind in (Kind.BODIES, Kind.SUBMISSIONS) and charged != receipt.credits_charged:
            why = "charged for what it counts, by the rows of the attempts"
            stands, should_be = display(receipt.credits_charged), display(charged)
            totals.differ([Difference("receipts", receipt.id, "credits_charged", stands, should_be, why)])
    totals.differ(_unfounded(totals, known))
    for left, right, why in (
        ("post", "charged", "sum of posts = sum of credits_charged (architecture, 2)"),
        ("open_holds", "held", "sum of open holds = sum of credits_held of open money (architecture, 2)"),
    ):
        one, other = (totals.sums.get(name, Decimal(0)) for name in (left, right))
        if one != other:
            totals.differ([Difference("ledger", "all", f"sum of {left}", display(one), display(other), why)])
    for account, signatures in totals.signatures.items():
        totals.differ(_suspect(account, misfit) for misfit in signatures.suspects())
        totals.counts["signatures_fit"] += signatures.counts.get(SignatureStatus.VALID, 0)
        totals.counts["signatures_unchecked"] += signatures.unchecked()
        totals.counts["unsigned_sources"] += signatures.counts.get(SignatureStatus.NOT_SIGNED, 0)
        if len(signatures.unverified) >= UNVERIFIED_KEPT_MAX:
            totals.counts["misfits_unnamed"] += 1


def _unfounded(totals: VerifyTotals, receipts: Sequence[Receipt]) -> Iterator[Difference]:
    """Findings that went beside what is kept of their number."""
    for (run_id, verdict), count in sorted(totals.unfound.items()):
        if count > (kept := totals.pruned_findings.get((run_id, verdict), 0)):
            why = "so many attempts of this verdict have no finding"
            where = "pruned_findings", f"{run_id}.{verdict}", "row_count"
            yield Difference(*where, display(kept), f"{count} or more", why)
    kept, dropped = sum(totals.pruned_findings.values()), [r for r in receipts if r.kind == Kind.FINDINGS]
    if receipts and kept > (most := sum(receipt.row_count for receipt in dropped)):
        why = "the receipts count no more findings"
        yield Difference("pruned_findings", "all", "row_count", display(kept), f"{most} or less", why)


async def _unfiled(
    snapshot: "BooksSnapshot",
    rows: Sequence[Row],
    reading: Reading,
    totals: VerifyTotals,
    default_account: str,
) -> None:
    keys = {}
    for row in rows:
        account = row["account"] or default_account
        totals.note(account, row["id"], row["received_at_ms"], reading.check_signature(account, row))
        totals.counts[f"inbox_{row['state']}"] += 1
        if row["body"] is None:
            why = row["fault"]
            totals.differ(
                [Difference("deliveries", row["id"], "body", "unreadable", "bytes as received", why)]
            )
            continue
        if row["state"] == "done":
            totals.differ(_unmatched(row))
            keys[row["id"]] = _key_of(row, reading)
    known = await snapshot.sent_of(key[0] for key in keys.values() if key is not None)
    for row in rows:
        key = keys.get(row["id"])
        if key is not None and key in known:
            account, sent_at_ms = known[key]
            # A later attempt did not exist yet, perhaps, when somebody named its key.
            is_there = key[1] == 1 or (sent_at_ms is not None and sent_at_ms <= row["received_at_ms"])
            if is_there and row["account"] in (None, account):
                why = "its report names this task's key, so it was not unmatched"
                totals.differ([Difference("deliveries", row["id"], "task_id", "null", key[0], why)])


def _unmatched(row: Row) -> Iterator[Difference]:
    if row["effect"] != "unmatched":
        why = "it is done and belongs to no task"
        yield Difference("deliveries", row["id"], "effect", display(row["effect"]), "unmatched", why)
    elif not row["known"]:
        why = "a valid delivery for a task that we never sent"
        yield Difference("findings", row["id"], "row", "missing", "unmatched", why)


def _id_named(row: Row, reading: Reading) -> str | None:
    if row["body"] is None:
        return None
    try:
        return reading.report(row["body"]).provider_task_id
    except ValueError:
        return None


def _key_of(row: Row, reading: Reading) -> tuple[str, int] | None:
    try:
        return parse_idempotency_key(reading.report(row["body"]).idempotency_key or "")
    except ValueError:
        return None


def _orphaned(orphan: Orphan) -> Difference:
    if orphan.column == "kind":
        return Difference("ledger", orphan.key, "kind", "another", "hold, post or void", "no such kind")
    if orphan.column == "delivery_id":
        why = "no delivery is unmatched for it"
        return Difference("findings", orphan.key, "row", "unmatched", "none", why)
    if orphan.column == "ordinal":
        why = "the run has no task of this record: deleted, or the row is invented"
        what = "own columns" if orphan.table == "task_metadata" else "samples"
        return Difference(orphan.table, orphan.key, "ordinal", what, "a stored task", why)
    why = f"task {orphan.task_id} is not there: deleted, or the row is invented"
    key = f"{orphan.task_id}.{orphan.key}" if orphan.table in ("attempts", "results") else orphan.key
    return Difference(orphan.table, key, "task_id", orphan.task_id, "a stored task", why)


def _suspect(account: str, misfit: UnverifiedDelivery) -> Difference:
    where = "deliveries", misfit.delivery_id
    if misfit.signature_status is SignatureStatus.STALE:
        why = "it was signed at another time, and would have been refused then"
        return Difference(
            *where, "received_at_ms", display(misfit.received_at_ms), "the time it was signed", why
        )
    signature = "none" if misfit.signature_status is SignatureStatus.UNSIGNED else "one that fits no secret"
    why = (
        f"deliveries of account {account} before and after it fit: altered, or signed by a secret that is "
        "no longer configured (--secret-env)"
    )
    return Difference(*where, "signature", signature, "one that fits", why)
