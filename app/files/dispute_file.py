"""The archive of a dispute: who writes it, from what, and what its README and its manifest say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config import Settings
from app.domain.evidence.dispute import Book, readme
from app.domain.evidence.records import DisputedAttempt, DisputedTask, Request
from app.domain.submission import ClaimedTask
from app.domain.task import idempotency_key
from app.domain.text import counted
from app.domain.time_format import iso_utc
from app.files.archive import Archive, open_archive, suffix_of
from app.files.atomic_file import atomic_file
from app.provider.wire import encode_create, path_of
from app.services.dispute import Dispute, Disputed, Encode
from app.store import Store
from app.store.read.runs import RunRow
from app.views.runs import run_document

FORMAT = "tallyhook-dispute-1"
ASKED = "ask"
"""The source of a run that is one sync call."""
COLUMNS = (
    "number",
    "verdict",
    "provider_task_id",
    "idempotency_key",
    "request_ids",
    "task_type",
    "ordinal",
    "custom_id",
    "sample",
    "repeats",
    "attempt",
    "submitted_at",
    "settled_at",
    "expected",
    "actual",
    "difference",
    "in_words",
    "folder",
)
"""Of the list as CSV; as JSON lines it has more."""


async def write_dispute(
    store: Store, settings: Settings, run: RunRow, path: Path, at_ms: int, *, with_metadata: bool = False
) -> Disputed:
    """Write the archive, unless there is nothing to dispute; then no file is made. Raises UserError."""
    if not await store.disputes.discrepancies(await store.disputes.dispute_scope(run.id), after=0, limit=1):
        return Disputed()
    options = await store.accounts.send_options([run.id])
    encode = encoder(settings, run, batched=options[run.id].batch_size > 1)
    with atomic_file(path) as file, open_archive(file, suffix_of(path), at_ms, COLUMNS) as archive:
        writer = Dispute(
            store,
            archive,
            encode,
            secrets=secrets_of(settings),
            sync=run.source == ASKED,
            with_metadata=with_metadata,
        )
        done = await writer.write(run.id)
        done.pruned_at_ms = [one.at_ms for one in await store.pruned.disputed_bodies(run.id)]
        _finish(archive, run, done, at_ms)
    return done


def _finish(archive: Archive, run: RunRow, done: Disputed, at_ms: int) -> None:
    # The archive goes to somebody else: where the file lay on our disk is none of their business.
    run = replace(run, source=Path(run.source).name)
    book = Book(
        run_id=run.id, name=run.name, source=run.source, account=run.account, begun_ms=run.created_at_ms
    )
    archive.add("README.txt", readme(book, done.verdicts, at_ms=at_ms, withheld=done.withheld).encode())
    head = {"format": FORMAT, "made_at": iso_utc(at_ms), "run": run_document(run), **_counts(done)}
    archive.finish("discrepancies", head)


def dispute_document(run: RunRow, done: Disputed, path: Path) -> dict[str, Any]:
    """What was written, and where."""
    message = f"{run.name} has no discrepancy: there is nothing to dispute"
    if done.count:
        message = (
            f"{counted(done.count, 'discrepancy', 'discrepancies')} of {run.name} with "
            f"{counted(done.deliveries, 'delivery', 'deliveries')} written to {path}; "
            "prompts and answers are in it"
        )
    return {
        "run": run_document(run),
        "output": str(path) if done.count else None,
        **_counts(done),
        "message": message,
    }


def _counts(done: Disputed) -> dict[str, Any]:
    return {
        "discrepancies": done.count,
        "deliveries": done.deliveries,
        "withheld": done.withheld,
        "deliveries_pruned": len(done.pruned_at_ms),
        "verdicts": {verdict: sums.document() for verdict, sums in sorted(done.verdicts.items())},
    }


def encoder(settings: Settings, run: RunRow, *, batched: bool) -> Encode:
    """Makes a create call again by the code that sent it, from the stored prompt and key. The webhook's
    address is the one that is configured now; without the account's key there is none."""
    account = settings.all_accounts().get(run.account)
    webhook_url = account.webhook_url if account is not None else None

    def encode(task: DisputedTask, attempt: DisputedAttempt) -> Request:
        if run.source == ASKED:
            return Request("POST", f"/v1/monitor/{path_of(task.task_type)}", task.payload_json.encode())
        claimed = ClaimedTask(
            id=task.id,
            run_id=run.id,
            attempt=attempt.attempt,
            idempotency_key=idempotency_key(task.id, attempt.attempt),
            task_type=task.task_type,
            payload_json=task.payload_json,
            priority=task.priority,
            credits_estimate=attempt.estimate,
            sends=1,
            first_sent_at_ms=attempt.first_sent_at_ms or 0,
            claim="",
        )
        path = "/v1/async/task/batch" if batched else "/v1/async/task"
        return Request("POST", path, encode_create(claimed, webhook_url))

    return encode


def secrets_of(settings: Settings) -> list[str]:
    """Everything configured that must not be in an archive: keys, signing secrets, passwords of databases."""
    secrets = [secret.get_secret_value() for secret in settings.notice_secret]
    for account in settings.all_accounts().values():
        secrets += [account.api_key, *account.webhook_secrets]
    return [*secrets, *settings.passwords()]
