"""One store: a part for each subject, all on one database. Decides nothing."""

from app.ports import ArchivedDeliveries, ReadAnswer
from app.store.database import Database
from app.store.read.certificates import CertificateReads
from app.store.read.charges import ChargeReads
from app.store.read.disputes import DisputeReads
from app.store.read.exports import ExportReads
from app.store.read.forecasts import ForecastReads
from app.store.read.notice_triggers import NoticeTriggerReads
from app.store.read.pruned import PrunedReads
from app.store.read.reports import ReportReads
from app.store.read.runs import Queries
from app.store.read.set_aside import SetAsideReads
from app.store.read.settled import SettledReads
from app.store.read.waiting import WaitingReads
from app.store.write.accounts import AccountWrites
from app.store.write.adjustments import AdjustmentWrites
from app.store.write.archives import ArchiveWrites
from app.store.write.audits import AuditWrites
from app.store.write.early_polls import EarlyPollWrites
from app.store.write.future_times import FutureTimeWrites
from app.store.write.health import HealthWrites
from app.store.write.inbox import InboxWrites
from app.store.write.load import LoadWrites
from app.store.write.notices import NoticeWrites
from app.store.write.partitions import PartitionWrites
from app.store.write.polls import PollWrites
from app.store.write.pruning import PruneWrites
from app.store.write.pruning_rows import RowPruneWrites
from app.store.write.results import ResultWrites
from app.store.write.retries import RetryWrites
from app.store.write.run_ends import RunEndWrites
from app.store.write.runs import RunWrites
from app.store.write.schedules import ScheduleWrites
from app.store.write.settlement import SettlementWrites
from app.store.write.spending import SpendingWrites
from app.store.write.submission import SubmissionWrites
from app.store.write.sync_calls import SyncCallWrites


class Store:
    """The truth: every write and every read of the database."""

    def __init__(
        self, db: Database, read_answer: ReadAnswer, archive: ArchivedDeliveries | None = None
    ) -> None:
        """`read_answer`: how the answer is taken from a stored body, which is the only copy of it. `archive`:
        where bodies are that have left the database."""
        self.db = db
        self.read_answer = read_answer
        self.archive = archive
        self.runs = RunWrites(db)
        self.loading = LoadWrites(db)
        self.retries = RetryWrites(db)
        self.accounts = AccountWrites(db)
        self.submissions = SubmissionWrites(db)
        self.inbox = InboxWrites(db)
        self.settlements = SettlementWrites(db, read_answer)
        self.results = ResultWrites(db, read_answer)
        self.polls = PollWrites(db)
        self.early_polls = EarlyPollWrites(db)
        self.partitions = PartitionWrites(db)
        self.archives = ArchiveWrites(db)
        self.pruning = PruneWrites(db)
        self.row_pruning = RowPruneWrites(db)
        self.run_ends = RunEndWrites(db)
        self.spending = SpendingWrites(db)
        self.schedules = ScheduleWrites(db)
        self.sync_calls = SyncCallWrites(db)
        self.notices = NoticeWrites(db)
        self.notice_triggers = NoticeTriggerReads(db)
        self.health = HealthWrites(db)
        self.future_times = FutureTimeWrites(db)
        self.forecasts = ForecastReads(db)
        self.adjustments = AdjustmentWrites(db)
        self.audits = AuditWrites(db)
        self.charges = ChargeReads(db)
        self.queries = Queries(db)
        self.waiting = WaitingReads(db)
        self.reports = ReportReads(db)
        self.pruned = PrunedReads(db)
        self.exports = ExportReads(db, read_answer, archive)
        self.settled = SettledReads(db, read_answer, archive)
        self.disputes = DisputeReads(db, archive)
        self.certificates = CertificateReads(db, read_answer)
        self.set_aside = SetAsideReads(db)

    async def close(self) -> None:
        """Give every connection back."""
        await self.db.close()
