"""One history: what happens between us and the provider, step by step. A step is a verb and a number that
picks among what is possible then, so that Hypothesis can shrink it. What must be true in the end stands in
`checks`.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.accounting.balances import Balance
from app.domain.pricing import estimate
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import RETRYABLE_STATES, Money, TaskSpec, TaskState
from app.emulator.engine.tasks import Task
from app.ports import CreateAnswer
from tests.histories.provider import CHANGE, START, EmulatedProvider, Setting
from tests.histories.stored import StoredBooks

HOUR_S = 3_600
QUIET_S = 130
"""Longer than the lag of a balance and the slack on both of its sides."""
WAITS_S = (5, 20, 61, 600, 3 * HOUR_S, 26 * HOUR_S, 12 * HOUR_S, 10)
QUESTIONS: Sequence[tuple[str, dict[str, object]]] = (
    ("GOOGLE", {"query": "q", "country": "US", "pages": 3, "include": {"aioverview": {}}}),
    ("PERPLEXITY", {"prompt": "p", "country": "US", "state": "CA"}),
    ("CHATGPT", {"prompt": "p", "country": "DE", "include": {"searchQueries": True}}),
    ("AIMODE", {"prompt": "p", "country": "DE", "include": {"expandProducts": True}}),
    ("PERPLEXITY", {"prompt": "p", "country": "FR"}),
    ("AIMODE", {"prompt": "p", "country": "DE"}),
)


@dataclass(frozen=True)
class Reported:
    """What one report said, as far as two reports can contradict each other."""

    status: str
    answer: str
    charged: int | None


class History:
    """Runs the steps of one history against one pair of books."""

    def __init__(self, setting: Setting, books: StoredBooks) -> None:
        self.setting = setting
        self.provider = EmulatedProvider(setting)
        self.books = books
        self.late: list[Submission] = []
        self.reported: dict[str, list[Reported]] = defaultdict(list)
        self.strangers = 0
        self.upgraded = False
        self.snapshots: list[Balance] = []
        day = START.date().isoformat()
        specs = [
            (TaskSpec(n, task_type, payload), estimate(task_type, payload, day))
            for n, (task_type, payload) in enumerate(QUESTIONS, 1)
        ]
        books.load(specs, self.now_ms)
        self.look(0)
        self.provider.advance(QUIET_S)

    @property
    def now_ms(self) -> int:
        return self.provider.now_ms

    def step(self, verb: str, pick: int) -> None:
        """One thing happens, if it can."""
        VERBS[verb](self, pick)

    # Time and balances.

    def wait(self, pick: int) -> None:
        self.provider.advance(WAITS_S[pick % len(WAITS_S)])

    def look(self, pick: int) -> None:
        """Take a balance, fresh or as it is cached."""
        fresh = pick % 3 == 2
        b = self.provider.balance(fresh=fresh)
        source = "header" if fresh else "credits"
        self.snapshots.append(replace(b, source=source))

    def spend_elsewhere(self, pick: int) -> None:
        self.provider.spend_elsewhere(1 + pick % 9)

    def reprice(self, pick: int) -> None:
        """The new price may begin at any hour of its day."""
        if self.now_ms >= 1000 * CHANGE.timestamp():
            self.provider.reprice()

    def upgrade(self, pick: int) -> None:
        if not self.upgraded:
            self.provider.emulator.registry.change_plan(self.provider.organization, "hobby")
            self.upgraded = True

    # What we do.

    def submit(self, pick: int) -> None:
        """Some tasks. An answer arrives, is lost on its way or comes late; a request may never arrive."""
        for n, task in enumerate(self.books.claim(1 + pick % 3, self.now_ms)):
            fate = (pick >> 2 + 3 * n) % 8
            if fate == 5:
                self.books.record([self._ended(task, CreateAnswer(Answer.LOST))])
                continue
            answer = self.provider.create(task)
            if fate == 6:
                self.books.record([self._ended(task, CreateAnswer(Answer.LOST))])
            elif fate == 7:
                self.late.append(self._ended(task, answer))
            else:
                self.books.record([self._ended(task, answer)])

    def _ended(self, task: ClaimedTask, answer: CreateAnswer) -> Submission:
        now = self.now_ms
        return Submission(
            task,
            answer.answer,
            now,
            not_before_ms=now + 1_000,
            http_status=answer.http_status,
            code=answer.code,
            provider_task_id=answer.provider_task_id,
            credits_to_charge=answer.credits_to_charge,
        )

    def late_response(self, pick: int) -> None:
        if self.late:
            self.books.record([self.late.pop(pick % len(self.late))])

    def retry(self, pick: int) -> None:
        rows = {row.task_id: row for row in self.books.rows().attempts}  # the last attempt of each
        closed = [row.task_id for row in rows.values() if row.state in RETRYABLE_STATES]
        if closed:
            self.books.retry(closed[pick % len(closed)], self.now_ms)

    def poll(self, pick: int) -> None:
        """Ask about a task that we wait for; one that is gone is given up, and may still be delivered."""
        rows = self.books.rows().attempts
        asked = [r for r in rows if r.money is Money.HELD and r.provider_task_id is not None]
        if not asked:
            return
        row = asked[pick % len(asked)]
        body = self.provider.status(str(row.provider_task_id))
        if body is None:
            self.books.give_up(row.key)
        elif self.provider.tasks[row.key].terminal:
            self._receive([(self.provider.tasks[row.key], body, "true")], Source.POLL)

    # What the provider delivers.

    def deliver(self, pick: int) -> None:
        """One to three reports in one batch, in any order, perhaps the same one twice; others never come."""
        finished = self.provider.finished()
        if finished:
            chosen = [finished[(pick >> 2 + 4 * n) % len(finished)] for n in range(1 + pick % 3)]
            self._receive([(task, self.provider.report(task), "true") for task in chosen])

    def deliver_blank(self, pick: int) -> None:
        """A report that does not tell the charge, perhaps in other words than the next one."""
        blank = [task for task in self.provider.finished() if not self._charge_is_reported(task)]
        if blank:
            task = blank[pick // 2 % len(blank)]
            self._receive([(task, *self._altered(task, charge=None, other_words=bool(pick % 2)))])

    def contradict(self, pick: int) -> None:
        """Another status, charge or answer for a task whose charge is known."""
        known = [task for task in self.provider.finished() if self._charge_is_reported(task)]
        if not known:
            return
        task = known[pick // 3 % len(known)]
        changes: dict[str, Any] = [
            {"flip": True},
            {"charge": 50 + (task.charged or 0)},
            {"other_words": True},
        ][pick % 3]
        self._receive([(task, *self._altered(task, **changes))])

    def stranger(self, pick: int) -> None:
        finished = self.provider.finished()
        if finished:
            body = json.loads(self.provider.report(finished[pick % len(finished)]))
            body["task"] |= {"id": f"stranger-{pick}", "idempotencyKey": "somebody.else"}
            self.books.receive([json.dumps(body).encode()], Source.DELIVERY, self.now_ms)
            self.strangers += 1

    def _charge_is_reported(self, task: Task) -> bool:
        return any(one.charged is not None for one in self.reported[str(task.idempotency_key)])

    def _altered(
        self, task: Task, *, charge: int | None = -1, other_words: bool = False, flip: bool = False
    ) -> tuple[bytes, str]:
        body = json.loads(self.provider.report(task))
        if charge != -1:
            place = body["credits"] if "credits" in body else body["task"]
            place["creditsCharged"] = charge
        if other_words:
            body["response"] = {"text": "in other words"}
        if flip:
            body["task"]["status"] = "FAILED" if task.status == "COMPLETED" else "COMPLETED"
        return json.dumps(body).encode(), "other" if other_words else "true"

    def _receive(self, reports: Sequence[tuple[Task, bytes, str]], source: Source = Source.DELIVERY) -> None:
        for task, body, answer in reports:
            report = json.loads(body)
            place = report["credits"] if "credits" in report else report["task"]
            reported = Reported(report["task"]["status"], answer, place["creditsCharged"])
            self.reported[str(task.idempotency_key)].append(reported)
        self.books.receive([body for _, body, _ in reports], source, self.now_ms)

    def end(self) -> None:
        """Everything is sent and arrives in the end, and then nothing moves any more."""
        self.provider.advance(WAITS_S[0])
        for task in self.books.claim(len(QUESTIONS), self.now_ms):
            self.books.record([self._ended(task, self.provider.create(task))])
        while any(not task.terminal for task in self.provider.tasks.values()):
            self.provider.advance(HOUR_S)
        for one in self.late:
            self.books.record([one])
        finished = self.provider.finished()
        if finished:
            self._receive([(task, self.provider.report(task), "true") for task in reversed(finished)])
        for _ in range(2):
            self.provider.advance(QUIET_S)
            self.look(0)

    def still_open(self) -> bool:
        """Whether some attempt was accepted and nobody has said what it cost."""
        return any(row.money is Money.HELD or _perhaps_sent(row) for row in self.books.rows().attempts)


def _perhaps_sent(row: Any) -> bool:
    unclear = (TaskState.PENDING, TaskState.SUBMITTING, TaskState.EXPIRED)
    return row.money is Money.NONE and row.first_sent_ms is not None and row.state in unclear


VERBS: dict[str, Callable[[History, int], None]] = {
    "wait": History.wait,
    "submit": History.submit,
    "deliver": History.deliver,
    "poll": History.poll,
    "look": History.look,
    "deliver_blank": History.deliver_blank,
    "contradict": History.contradict,
    "late_response": History.late_response,
    "retry": History.retry,
    "spend_elsewhere": History.spend_elsewhere,
    "upgrade": History.upgrade,
    "reprice": History.reprice,
    "stranger": History.stranger,
}
"""Simplest first: Hypothesis shrinks towards it."""
