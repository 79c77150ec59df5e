"""Reading the evidence about one task: its deliveries, what they are about, and what is missing or astray."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.domain.accounting.adjustment import account_entry
from app.domain.delivery import ParsedDelivery
from app.domain.retention import Receipt
from app.domain.settlement import Source
from app.domain.task import Money, parse_idempotency_key
from app.domain.text import counted
from app.domain.verification.comparison import Difference, StoredText, display
from app.domain.verification.derivation import SettleRule
from app.domain.verification.signature_checks import SignatureStatus
from app.domain.verification.stored_rows import Row, TaskBooks
from app.ports import ReadReport


@dataclass(frozen=True, slots=True)
class Reading:
    """How raw evidence is read: the wire, the rules, the secrets."""

    report: ReadReport
    decide: SettleRule
    stored_text: StoredText
    check_signature: Callable[[str, Row], SignatureStatus]
    """(account, delivery row) -> what its stored signature says."""


class Evidence:
    """What the reports about one task say, by attempt. `differences` must be gone through first."""

    def __init__(self, books: TaskBooks, reading: Reading) -> None:
        self._books, self._reading = books, reading
        self._id: str = books.task["id"]
        self.reports: dict[int, list[ParsedDelivery]] = {}
        self.rows: dict[str, Row] = {}
        """Deliveries by id."""
        self.broken: set[int] = set()
        """Attempts of which evidence is missing or unreadable: they are reported once."""
        self.pruned: dict[int, Receipt] = {}
        """Attempts of which evidence was pruned, with the receipt that says so."""
        self.unsent: dict[int, Receipt] = {}
        """Attempts of which the ends of their sends were pruned, with the receipt that says so."""
        self.unfound: Counter[str] = Counter()
        """Verdicts of attempts whose findings were pruned."""
        self.archived: dict[int, Receipt] = {}
        """Attempts whose result was read from the archive, with the receipt that counts it."""
        self.signature_status: list[tuple[str, str, int, SignatureStatus]] = []
        """(account, delivery id, received at, what its signature says)."""

    def differences(self, attempts: int) -> Iterator[Difference]:
        """Everything that is wrong with the evidence itself. `attempts`: how many the task has."""
        for row in self._books.deliveries:
            yield from self._filed(row)
        for row in self._books.elsewhere:
            yield from self._elsewhere(row)
        yield from self._missing()
        yield from self._astray(attempts)

    def parse(self, row: Row) -> tuple[ParsedDelivery | None, str]:
        """What a delivery says, or why it cannot be read."""
        if row["body"] is None:
            return None, row["fault"]
        try:
            report = self._reading.report(row["body"])
        except ValueError as error:
            return None, str(error)
        source = Source(row["source"])
        anothers = row["id"] in self._books.anothers
        parsed = ParsedDelivery(
            row["id"], source, row["received_at_ms"], report, row["account"], has_anothers_id=anothers
        )
        return parsed, ""

    def _filed(self, row: Row) -> Iterator[Difference]:
        """A delivery that is filed under the task."""
        task = self._books.task
        account = row["account"] or task["account"]
        self.signature_status.append(
            (account, row["id"], row["received_at_ms"], self._reading.check_signature(account, row))
        )
        parsed, fault = self.parse(row)
        if parsed is None:
            self.broken.add(row["attempt"])
            yield Difference("deliveries", row["id"], "body", "bytes that cannot be read", "a report", fault)
            return
        key = parse_idempotency_key(parsed.report.idempotency_key or "") or (self._id, row["attempt"])
        why = f"its report names the key {parsed.report.idempotency_key}"
        if key[0] != self._id:
            yield Difference("deliveries", row["id"], "task_id", self._id, key[0], why)
            return
        if key[1] != row["attempt"]:
            yield Difference(
                "deliveries", row["id"], "attempt", display(row["attempt"]), display(key[1]), why
            )
        if row["account"] not in (None, task["account"]):
            why = "another account's secret vouches for its own tasks only"
            yield Difference("deliveries", row["id"], "account", row["account"], task["account"], why)
        if row["state"] != "done":
            why = "it is filed under a task, so it was settled"
            yield Difference("deliveries", row["id"], "state", row["state"], "done", why)
        self._keep(row, parsed, key[1])

    def _elsewhere(self, row: Row) -> Iterator[Difference]:
        """One that rows of the task name and that is not filed under it."""
        if self._books.task["reused_from"] is not None:
            self.rows[row["id"]] = row  # it is filed where the answer was bought
            return
        parsed, fault = self.parse(row)
        if parsed is None:
            self.broken |= self._naming(row["id"])
            yield Difference("deliveries", row["id"], "body", "bytes that cannot be read", "a report", fault)
            return
        key = parse_idempotency_key(parsed.report.idempotency_key or "")
        if key is not None and key[0] == self._id:
            self._keep(row, parsed, key[1])  # reported where it is filed instead
            if row["task_id"] is None and row["state"] != "done":
                why = "rows of the task come from it, so it was settled"
                yield Difference("deliveries", row["id"], "state", row["state"], "done", why)
            return
        self.broken |= self._naming(row["id"])
        why = f"rows of task {self._id} come from it"
        filed_under = display(row["task_id"])
        yield Difference("deliveries", row["id"], "task_id", filed_under, self._id, why)

    def _keep(self, row: Row, parsed: ParsedDelivery, attempt: int) -> None:
        self.rows[row["id"]] = row
        self.reports.setdefault(attempt, []).append(parsed)

    def _naming(self, delivery_id: str) -> set[int]:
        rows = (*self._books.results, *self._books.ledger, *self._books.findings)
        return {row["attempt"] for row in rows if row["delivery_id"] == delivery_id}

    def _missing(self) -> Iterator[Difference]:
        books = self._books
        there = {row["id"] for row in (*books.deliveries, *books.elsewhere)}
        archived = {row["id"] for row in books.deliveries if row.get("archived")}
        for result in books.results:
            receipt = books.receipts.of_body(result["delivery_id"])
            if receipt is not None and result["delivery_id"] in archived:
                self.archived[result["attempt"]] = receipt
        for table, rows in (
            ("results", books.results),
            ("ledger", books.ledger),
            ("findings", books.findings),
        ):
            for row in rows:
                if row["delivery_id"] is not None and row["delivery_id"] not in there:
                    if (receipt := self._receipt_of(row)) is not None:
                        self.pruned[row["attempt"]] = receipt
                        continue
                    self.broken.add(row["attempt"])
                    why = (
                        f"there is no such delivery: deleted, and attempt {row['attempt']} cannot be derived"
                    )
                    key = self._key(table, row)
                    yield Difference(table, key, "delivery_id", row["delivery_id"], "a stored delivery", why)

    def _receipt_of(self, row: Row) -> Receipt | None:
        """The receipt that covers the delivery a row names; None: it should be there. What was open or
        retained when its day was pruned, was not dropped."""
        books, receipt = self._books, self._books.receipts.of_body(row["delivery_id"])
        attempts = {one["attempt"]: one for one in (books.task, *books.attempts)}
        attempt = attempts.get(row["attempt"])
        if receipt is None or attempt is None or attempt["money"] == Money.HELD:
            return None
        return receipt if self._is_before_retained(receipt) else None

    def note_sends(self, row: Row) -> Receipt | None:
        """Note and return the receipt that covers the sends of an attempt, given its row; None: they stand,
        or should. Sends went only of what was accepted by its create call, and closed."""
        n, receipt = row["attempt"], self._books.receipts.of_sends(row["submitted_at_ms"])
        if receipt is None or row["money"] not in (Money.POSTED, Money.VOIDED):
            return None
        own = [entry for entry in self._books.ledger if entry["attempt"] == n and entry["kind"] == "hold"]
        stand = any(sent["attempt"] == n for sent in self._books.submissions)
        if stand or any(hold["delivery_id"] for hold in own) or not self._is_before_retained(receipt):
            return None
        self.unsent[n] = receipt
        return receipt

    def _is_before_retained(self, receipt: Receipt) -> bool:
        since_ms = self._books.task.get("retained_at_ms")
        return since_ms is None or since_ms > receipt.begun_at_ms

    def _astray(self, attempts: int) -> Iterator[Difference]:
        """Rows of attempts that do not exist, or that name another run."""
        books = self._books
        for table, rows in (
            ("submissions", books.submissions),
            ("deliveries", books.deliveries),
            ("results", books.results),
            ("ledger", books.ledger),
            ("findings", books.findings),
            ("account_entries", books.adjustments),
        ):
            for row in rows:
                if row["attempt"] is not None and not 1 <= row["attempt"] <= attempts:
                    where, why = (
                        (table, self._key(table, row)),
                        f"the task has {counted(attempts, 'attempt')}",
                    )
                    yield Difference(*where, "attempt", display(row["attempt"]), f"1 to {attempts}", why)
                if row.get("run_id") not in (None, books.task["run_id"]):
                    where, why = (table, self._key(table, row)), "the run of its task"
                    yield Difference(*where, "run_id", row["run_id"], books.task["run_id"], why)
        for entry in books.adjustments:
            yield from account_entry(entry)
            if entry["account"] != books.task["account"]:
                why, key = "the account of its task", display(entry["id"])
                yield Difference(
                    "account_entries", key, "account", entry["account"], books.task["account"], why
                )

    def _key(self, table: str, row: Row) -> str:
        return f"{self._id}.{row['attempt']}" if table == "results" else display(row["id"])
