"""The provider: the emulator's own engine and books, in this process, on a clock that only a history moves.

Nothing of ours decides here; what crosses the border are bytes of the wire.
"""

import itertools
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from app.domain.accounting.balances import Balance
from app.domain.send_outcome import Answer, classify
from app.domain.submission import ClaimedTask
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.engine.clock import Clock
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.errors import RefusalError
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Options
from app.emulator.engine.tasks import Task
from app.ports import CreateAnswer
from app.provider.wire import encode_create, read_balance, read_created

ACCOUNT = "ours"
KEY = "sk_live_0123456789abcdef0123456789abcdef"
START = datetime(2026, 8, 24, 23, 50, tzinfo=UTC)
"""A little before the day on which Perplexity's price changes."""
CHANGE = datetime(2026, 8, 25, tzinfo=UTC)
OLD_PERPLEXITY = {"PERPLEXITY": 3}


@dataclass(frozen=True)
class Setting:
    """What a history's provider is like, and when it does what."""

    seed: int = 0
    reprices_after_h: int = 20
    """Hours from the start until the new price at the latest; within 2026-08-25."""
    resets_after_h: int = 400
    """Hours until the billing cycle ends."""
    credits: int = 10_000
    wrong_charge: float = 0.0
    fail: float = 0.0


class EmulatedProvider:
    """One organization at one provider."""

    def __init__(self, setting: Setting) -> None:
        # The cycle began a month before it ends; day and hour are those of its end.
        ends = datetime.fromtimestamp(START.timestamp() + 3600 * setting.resets_after_h, UTC)
        month, year = (ends.month - 1, ends.year) if ends.month > 1 else (12, ends.year - 1)
        began = ends.replace(year=year, month=month, day=min(ends.day, 28))
        organization = OrganizationSpec(
            name=ACCOUNT,
            plan="lite",
            keys=(KeySpec(key=KEY),),
            subscribed_at=began,
            credits=setting.credits,
            prices=OLD_PERPLEXITY,
            slots=2,
        )
        faults = FaultRates(
            seed=setting.seed,
            fail=setting.fail,
            wrong_charge=setting.wrong_charge,
            internal_retry=0.1,
            wrapped_response=0.1,
            credits_in_task=0.1,
        )
        options = Options(edition="2026", organizations=(organization,), faults=faults, seed=setting.seed)
        ids = itertools.count(1)
        # Time stands still but for `advance`.
        clock = Clock(0.0, start_s=START.timestamp(), wall=lambda: 0.0, monotonic=lambda: 0.0)
        self.emulator = Emulator(options, clock=clock, new_id=lambda: str(uuid.UUID(int=next(ids))))
        self.emulator.answers.short = True
        self._key = self.emulator.registry.keys[KEY]
        self.organization = self._key.organization
        self.external = 0
        self.tasks: dict[str, Task] = {}
        self._payloads: dict[str, dict[str, object]] = {}
        self.emulator.timeline.at(
            START.timestamp() + 3600 * setting.reprices_after_h, lambda _: self.reprice()
        )

    @property
    def now_ms(self) -> int:
        """The present, as our own clock shows it."""
        return round(self.emulator.clock.now() * 1000)

    def advance(self, seconds: float) -> None:
        """Everything that falls due happens in order."""
        clock, timeline = self.emulator.clock, self.emulator.timeline
        until_s = clock.now() + seconds
        while (due_s := timeline.next_due_s()) is not None and due_s <= until_s:
            clock.jump_to(max(due_s, clock.now()))
            timeline.run_due(due_s)
        clock.jump_to(until_s)

    def create(self, task: ClaimedTask) -> CreateAnswer:
        """One create call, as its answer is read off the wire."""
        body = json.loads(encode_create(task, None))
        try:
            made = self.emulator.create_task(self._key, body)
        except RefusalError as refusal:
            answer = classify(refusal.status, refusal.code)
            return CreateAnswer(answer, refusal.status, refusal.code)
        response = json.dumps({"success": True, **made.head(made.edition, None)}).encode()
        assert made.idempotency_key is not None
        assert made.idempotency_key not in self.tasks, f"{made.idempotency_key} was bought twice"
        self.tasks[made.idempotency_key] = made
        self._payloads[made.idempotency_key] = dict(made.payload or {})
        self.emulator.scheduler.admit(self.organization, made, made.created_s)
        task_id, to_charge = read_created(response)
        return CreateAnswer(Answer.ACCEPTED, 200, provider_task_id=task_id, credits_to_charge=to_charge)

    def finished(self) -> list[Task]:
        """Every task with an outcome, oldest first; the provider may have forgotten it since."""
        return [task for task in self.tasks.values() if task.terminal]

    def report(self, task: Task) -> bytes:
        """The body of its webhook."""
        return self.emulator.report_body(task, self._payloads[str(task.idempotency_key)])

    def status(self, task_id: str) -> bytes | None:
        """What a poll is answered; None: 404."""
        try:
            task = self.emulator.find_task(self.organization, task_id)
        except RefusalError:
            return None
        return self.emulator.status_body(task, task.edition)

    def balance(self, *, fresh: bool) -> Balance:
        """`/v1/credits`, up to a minute old, or the header of a sync call, which says no more than what is
        left."""
        account = self.organization.account
        if fresh:
            return Balance(self.now_ms, Decimal(account.reported), None, None)
        body = json.dumps(account.as_credits(self.emulator.clock.now())).encode()
        balance = read_balance(body, self.now_ms)
        assert balance is not None
        return balance

    def reprice(self) -> None:
        """The new prices, for everything that completes from now on (C-E.5)."""
        self.emulator.registry.override_prices(self.organization, {})

    def spend_elsewhere(self, credits: int) -> None:
        """Somebody else uses the account."""
        self.organization.charge(credits)
        self.external += credits

    def bill(self) -> dict[str, int]:
        """Idempotency key -> what it really cost."""
        return {key: task.charged or 0 for key, task in self.tasks.items() if task.terminal}
