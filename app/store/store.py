"""One store: a part for each subject, all on one database. Decides nothing.

A part is imported and made when it is first asked for: a small command needs two or three of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.ports import ArchivedDeliveries, ReadAnswer
from app.store.database import Database

if TYPE_CHECKING:
    from app.store.read.batches import BatchReads
    from app.store.read.books_pages import BooksPageReads
    from app.store.read.certificates import CertificateReads
    from app.store.read.charges import ChargeReads
    from app.store.read.disputes import DisputeReads
    from app.store.read.exports import ExportReads
    from app.store.read.forecasts import ForecastReads
    from app.store.read.notice_triggers import NoticeTriggerReads
    from app.store.read.pruned import PrunedReads
    from app.store.read.relay import RelayReads
    from app.store.read.replica import ReplicaReads
    from app.store.read.reports import ReportReads
    from app.store.read.run_pages import RunPageReads
    from app.store.read.run_results import RunResultReads
    from app.store.read.run_samples import RunSampleReads
    from app.store.read.runs import Queries
    from app.store.read.set_aside import SetAsideReads
    from app.store.read.settled import SettledReads
    from app.store.read.standing import StandingReads
    from app.store.read.state import StateReads
    from app.store.read.task_pages import TaskPageReads
    from app.store.read.task_relay import TaskRelayReads
    from app.store.read.waiting import WaitingReads
    from app.store.write.access import AccessWrites
    from app.store.write.account_sheets import AccountSheetWrites
    from app.store.write.accounts import AccountWrites
    from app.store.write.adjustments import AdjustmentWrites
    from app.store.write.archives import ArchiveWrites
    from app.store.write.audits import AuditWrites
    from app.store.write.batch_files import BatchFileWrites
    from app.store.write.batches import BatchWrites
    from app.store.write.bulk_changes import BulkChangeWrites
    from app.store.write.early_polls import EarlyPollWrites
    from app.store.write.engine_days import EngineDayWrites
    from app.store.write.engine_pauses import EnginePauseWrites
    from app.store.write.future_times import FutureTimeWrites
    from app.store.write.health import HealthWrites
    from app.store.write.idempotency import IdempotencyWrites
    from app.store.write.inbox import InboxWrites
    from app.store.write.load import LoadWrites
    from app.store.write.notices import NoticeWrites
    from app.store.write.page_sessions import PageSessionWrites
    from app.store.write.partitions import PartitionWrites
    from app.store.write.polls import PollWrites
    from app.store.write.pruning import PruneWrites
    from app.store.write.pruning_rows import RowPruneWrites
    from app.store.write.refusals import RefusalWrites
    from app.store.write.relay_endpoints import RelayEndpointWrites
    from app.store.write.relay_messages import RelayMessageWrites
    from app.store.write.results import ResultWrites
    from app.store.write.retries import RetryWrites
    from app.store.write.rollup import RollupWrites
    from app.store.write.run_ends import RunEndWrites
    from app.store.write.runs import RunWrites
    from app.store.write.schedules import ScheduleWrites
    from app.store.write.settlement import SettlementWrites
    from app.store.write.spending import SpendingWrites
    from app.store.write.standing import StandingWrites
    from app.store.write.submission import SubmissionWrites
    from app.store.write.sync_calls import SyncCallWrites
    from app.store.write.uploads import UploadWrites

PARTS = {
    "runs": "write.runs.RunWrites",
    "loading": "write.load.LoadWrites",
    "retries": "write.retries.RetryWrites",
    "bulk_changes": "write.bulk_changes.BulkChangeWrites",
    "access": "write.access.AccessWrites",
    "page_sessions": "write.page_sessions.PageSessionWrites",
    "accounts": "write.accounts.AccountWrites",
    "submissions": "write.submission.SubmissionWrites",
    "inbox": "write.inbox.InboxWrites",
    "settlements": "write.settlement.SettlementWrites",
    "results": "write.results.ResultWrites",
    "polls": "write.polls.PollWrites",
    "early_polls": "write.early_polls.EarlyPollWrites",
    "engine_pauses": "write.engine_pauses.EnginePauseWrites",
    "partitions": "write.partitions.PartitionWrites",
    "archives": "write.archives.ArchiveWrites",
    "pruning": "write.pruning.PruneWrites",
    "row_pruning": "write.pruning_rows.RowPruneWrites",
    "run_ends": "write.run_ends.RunEndWrites",
    "spending": "write.spending.SpendingWrites",
    "rollup": "write.rollup.RollupWrites",
    "schedules": "write.schedules.ScheduleWrites",
    "sync_calls": "write.sync_calls.SyncCallWrites",
    "uploads": "write.uploads.UploadWrites",
    "notices": "write.notices.NoticeWrites",
    "notice_triggers": "read.notice_triggers.NoticeTriggerReads",
    "health": "write.health.HealthWrites",
    "batch_files": "write.batch_files.BatchFileWrites",
    "batches": "write.batches.BatchWrites",
    "batch_reads": "read.batches.BatchReads",
    "relay_endpoints": "write.relay_endpoints.RelayEndpointWrites",
    "relay_messages": "write.relay_messages.RelayMessageWrites",
    "relay": "read.relay.RelayReads",
    "task_relay": "read.task_relay.TaskRelayReads",
    "idempotency": "write.idempotency.IdempotencyWrites",
    "future_times": "write.future_times.FutureTimeWrites",
    "forecasts": "read.forecasts.ForecastReads",
    "adjustments": "write.adjustments.AdjustmentWrites",
    "audits": "write.audits.AuditWrites",
    "charges": "read.charges.ChargeReads",
    "queries": "read.runs.Queries",
    "run_samples": "read.run_samples.RunSampleReads",
    "run_pages": "read.run_pages.RunPageReads",
    "task_pages": "read.task_pages.TaskPageReads",
    "books_pages": "read.books_pages.BooksPageReads",
    "waiting": "read.waiting.WaitingReads",
    "standing": "write.standing.StandingWrites",
    "standing_tasks": "read.standing.StandingReads",
    "replica": "read.replica.ReplicaReads",
    "reports": "read.reports.ReportReads",
    "pruned": "read.pruned.PrunedReads",
    "exports": "read.exports.ExportReads",
    "settled": "read.settled.SettledReads",
    "run_results": "read.run_results.RunResultReads",
    "disputes": "read.disputes.DisputeReads",
    "certificates": "read.certificates.CertificateReads",
    "set_aside": "read.set_aside.SetAsideReads",
    "state": "read.state.StateReads",
    "engine_days": "write.engine_days.EngineDayWrites",
    "account_sheets": "write.account_sheets.AccountSheetWrites",
    "refusals": "write.refusals.RefusalWrites",
}
"""Name -> module under app.store, and class."""
TAKES = {
    "settlements": ("read_answer",),
    "results": ("read_answer",),
    "exports": ("read_answer", "archive"),
    "settled": ("read_answer", "archive"),
    "run_results": ("read_answer", "archive"),
    "relay": ("read_answer", "archive"),
    "standing_tasks": ("read_answer", "archive"),
    "disputes": ("archive",),
    "certificates": ("read_answer",),
}
"""What a part needs besides the database."""


class Store:
    """The truth: every write and every read of the database."""

    if TYPE_CHECKING:
        runs: RunWrites
        loading: LoadWrites
        retries: RetryWrites
        bulk_changes: BulkChangeWrites
        access: AccessWrites
        page_sessions: PageSessionWrites
        accounts: AccountWrites
        submissions: SubmissionWrites
        inbox: InboxWrites
        settlements: SettlementWrites
        results: ResultWrites
        polls: PollWrites
        early_polls: EarlyPollWrites
        engine_pauses: EnginePauseWrites
        partitions: PartitionWrites
        archives: ArchiveWrites
        pruning: PruneWrites
        row_pruning: RowPruneWrites
        run_ends: RunEndWrites
        spending: SpendingWrites
        rollup: RollupWrites
        schedules: ScheduleWrites
        sync_calls: SyncCallWrites
        uploads: UploadWrites
        notices: NoticeWrites
        notice_triggers: NoticeTriggerReads
        health: HealthWrites
        batch_files: BatchFileWrites
        batches: BatchWrites
        batch_reads: BatchReads
        relay_endpoints: RelayEndpointWrites
        relay_messages: RelayMessageWrites
        relay: RelayReads
        task_relay: TaskRelayReads
        idempotency: IdempotencyWrites
        future_times: FutureTimeWrites
        forecasts: ForecastReads
        adjustments: AdjustmentWrites
        audits: AuditWrites
        charges: ChargeReads
        queries: Queries
        run_pages: RunPageReads
        run_samples: RunSampleReads
        task_pages: TaskPageReads
        books_pages: BooksPageReads
        waiting: WaitingReads
        standing: StandingWrites
        standing_tasks: StandingReads
        replica: ReplicaReads
        reports: ReportReads
        pruned: PrunedReads
        exports: ExportReads
        settled: SettledReads
        run_results: RunResultReads
        disputes: DisputeReads
        certificates: CertificateReads
        set_aside: SetAsideReads
        state: StateReads
        engine_days: EngineDayWrites
        account_sheets: AccountSheetWrites
        refusals: RefusalWrites

    def __init__(
        self, db: Database, read_answer: ReadAnswer, archive: ArchivedDeliveries | None = None
    ) -> None:
        """`read_answer`: how the answer is taken from a stored body, which is the only copy of it. `archive`:
        where bodies are that have left the database."""
        self.db = db
        self.read_answer = read_answer
        self.archive = archive

    if not TYPE_CHECKING:  # a name that is none of the parts is the type checker's to find

        def __getattr__(self, name: str) -> Any:
            if name not in PARTS:
                raise AttributeError(f"the store has no part {name!r}")
            module, _, part = PARTS[name].rpartition(".")
            made = getattr(import_module(f"app.store.{module}"), part)
            needs = (getattr(self, need) for need in TAKES.get(name, ()))
            setattr(self, name, made(self.db, *needs))
            return self.__dict__[name]

    async def close(self) -> None:
        """Give every connection back."""
        await self.db.close()
