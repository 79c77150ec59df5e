"""One store, named by what it does: the writes and reads of the neighbouring modules on one database."""

from app.store.accounts import AccountWrites
from app.store.alive import AliveWrites
from app.store.asking import AskWrites
from app.store.auditing import AuditWrites
from app.store.certifying import CertifyReads
from app.store.charging import ChargeReads
from app.store.engine import Database
from app.store.evidence import EvidenceReads
from app.store.exporting import ExportReads
from app.store.finishing import FinishWrites
from app.store.forecasting import ForecastReads
from app.store.inbox import InboxWrites
from app.store.loading import LoadWrites
from app.store.moments import MomentWrites
from app.store.notices import NoticeWrites
from app.store.occasions import OccasionReads
from app.store.polling import PollingWrites
from app.store.queries import Queries
from app.store.reporting import ReportReads
from app.store.retrying import RetryWrites
from app.store.runs import RunWrites
from app.store.schedules import ScheduleWrites
from app.store.set_aside import SetAsideReads
from app.store.settlement import SettlementWrites
from app.store.spending import SpendingWrites
from app.store.submission import SubmissionWrites


class Store(
    RunWrites, LoadWrites, RetryWrites, AccountWrites, SubmissionWrites, InboxWrites, SettlementWrites,
    PollingWrites, FinishWrites, SpendingWrites, ScheduleWrites, AskWrites, NoticeWrites, OccasionReads,
    AliveWrites, MomentWrites, ForecastReads, AuditWrites, ChargeReads, Queries, ReportReads, ExportReads,
    EvidenceReads, CertifyReads, SetAsideReads,
):  # fmt: skip
    """The truth. Satisfies the protocols of app.ports."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def close(self) -> None:
        """Give every connection back."""
        await self.db.close()
