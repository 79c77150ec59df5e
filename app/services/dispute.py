"""A dispute: every discrepancy of a run as files, with all that bears on it, for the provider's support.

Reads only. Files are made one discrepancy at a time, so memory stays flat however many there are. What is
secret is given, and never written: not in a text, and not within a report, whose bytes must stay as they are.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from app.domain.evidence.dispute import Sums, answers_document, discrepancy_document, report_document
from app.domain.evidence.records import Discrepancy, DisputedAttempt, DisputedTask, Request, StoredReport
from app.domain.settlement import Source

if TYPE_CHECKING:
    from app.store import Store

CHUNK = 20
"""Discrepancies read at once: with two reports of 18 KB each under 1 MB."""
SECRET_CHARS_MIN = 8
"""Anything shorter is no secret, and would be found in every text."""
WITHHELD = b"[withheld]"
FOLDERS = {Source.DELIVERY: "deliveries", Source.POLL: "polls", Source.SYNC: "answers"}

Encode = Callable[[DisputedTask, DisputedAttempt], Request]
"""The create call of an attempt, by the code that sends it."""


class Archive(Protocol):
    """Where the files go."""

    def add(self, path: str, data: bytes) -> None: ...

    def note(self, document: dict[str, Any]) -> None:
        """Add a line to the list of all discrepancies."""


@dataclass(slots=True)
class Disputed:
    """What an archive holds."""

    count: int = 0
    deliveries: int = 0
    withheld: int = 0
    """Reports that hold a secret of ours, and therefore are not in it."""
    verdicts: dict[str, Sums] = field(default_factory=dict)
    pruned_at_ms: list[int] = field(default_factory=list)
    """Of each report that findings name and that is not in it: when it was dropped."""


class Dispute:
    """Writes the discrepancies of one run."""

    def __init__(
        self,
        store: "Store",
        archive: Archive,
        encode: Encode,
        *,
        secrets: Sequence[str],
        sync: bool,
        with_metadata: bool = False,
    ) -> None:
        self._store = store
        self._archive = archive
        self._encode = encode
        self._secrets = _spellings(secrets)
        self._with_metadata = with_metadata
        """Own columns are for whoever pays, so they go out only where that is wanted."""
        self._sync = sync
        """The run is one sync call: other prices, another path."""
        self._done = Disputed()

    async def write(self, run_id: str) -> Disputed:
        """All that is in the books now."""
        scope = await self._store.disputes.dispute_scope(run_id)
        after = 0
        while chunk := await self._store.disputes.discrepancies(scope, after=after, limit=CHUNK):
            for found in chunk:
                self._write_one(found)
            after = chunk[-1].id
        return self._done

    def _write_one(self, found: Discrepancy) -> None:
        done = self._done
        done.count += 1
        done.verdicts[found.verdict] = done.verdicts.get(found.verdict, Sums()).plus(found)
        folder = f"discrepancies/{done.count:06d}-{found.verdict}"
        document = discrepancy_document(
            found, done.count, folder, sync=self._sync, with_metadata=self._with_metadata
        )
        self._archive.note(self._redacted(document))
        self._add(f"{folder}/discrepancy.json", document)
        task = found.task
        for attempt in task.attempts if task is not None else ():
            assert task is not None  # noqa: S101
            self._write_attempt(f"{folder}/attempt-{attempt.attempt}", task, attempt)
        self._write_reports(folder, found.loose)

    def _write_attempt(self, folder: str, task: DisputedTask, attempt: DisputedAttempt) -> None:
        request = self._encode(task, attempt)
        body_path = f"{folder}/request.body"
        shown = {"method": request.method, "path": request.path, "body": body_path}
        self._add(f"{folder}/request.json", shown)
        self._archive.add(body_path, self._without_secrets(request.body))
        self._add(f"{folder}/answers.json", answers_document(attempt))
        self._write_reports(folder, attempt.reports)

    def _write_reports(self, folder: str, reports: Sequence[StoredReport]) -> None:
        for path, report in _places(folder, reports):
            body_path = f"{path}.body"
            withheld = any(secret in report.body for secret in self._secrets)
            if withheld:
                self._done.withheld += 1
            else:
                self._archive.add(body_path, report.body)
            self._done.deliveries += report.source == Source.DELIVERY
            self._add(f"{path}.json", report_document(report, None if withheld else body_path))

    def _add(self, path: str, document: object) -> None:
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        self._archive.add(path, self._without_secrets(text.encode()))

    def _redacted(self, document: dict[str, Any]) -> dict[str, Any]:
        redacted: dict[str, Any] = json.loads(self._without_secrets(json.dumps(document).encode()))
        return redacted

    def _without_secrets(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, WITHHELD)
        return data


def _spellings(secrets: Sequence[str]) -> list[bytes]:
    """Secrets as they would stand in a file, plain and as a JSON string."""
    long = [secret for secret in secrets if len(secret) >= SECRET_CHARS_MIN]
    escaped = [
        json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for secret in long for ascii_only in (True, False)
    ]
    return [secret.encode() for secret in dict.fromkeys(long + escaped)]


def _places(folder: str, reports: Sequence[StoredReport]) -> Iterator[tuple[str, StoredReport]]:
    """Each report with its path, numbered by kind."""
    numbers: dict[str, int] = {}
    for report in reports:
        kind = FOLDERS[Source(report.source)]
        numbers[kind] = numbers.get(kind, 0) + 1
        yield f"{folder}/{kind}/{numbers[kind]}", report
