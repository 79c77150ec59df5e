"""A provider double for tests whose timing must be exact: it binds keys, keeps books and answers as told.

It satisfies app.ports.Provider. Plain dicts: what it has accepted, and what it bills.
"""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.ports import BalanceAnswer, BalanceEnd, CreateAnswer, PollAnswer, Slots

LOSE = "accept, and lose the response"
"""The task is stored, but the connection breaks before the answer (S2, S3)."""

Scripted = CreateAnswer | Answer | str | None


@dataclass(slots=True)
class Accepted:
    """One task as the provider has it."""

    id: str
    key: str
    to_charge: Decimal
    status: str = "QUEUED"
    charged: Decimal | None = None
    response: Any = None

    def body(self, **changes: Any) -> bytes:
        """Its webhook body, or its poll's answer; `changes` falsify it."""
        credits = {"creditsToCharge": _plain(self.to_charge), "creditsCharged": _plain(self.charged)}
        task = {"id": self.id, "status": self.status, "idempotencyKey": self.key}
        whole = {"task": task, "credits": credits, "response": self.response}
        for name, value in changes.items():
            target = task if name in task else credits if name in credits else whole
            target[name] = value
        return json.dumps(whole).encode()


@dataclass(slots=True)
class ScriptedProvider:
    """Accepts everything, unless `script` holds an answer for the next call."""

    to_charge: Decimal | None = None
    """What it promises for each task; None: our own estimate."""
    script: deque[Scripted] = field(default_factory=deque)
    accepted: dict[str, list[Accepted]] = field(default_factory=dict)
    """By idempotency key. More than one is what must never happen."""
    bound: set[str] = field(default_factory=set)
    """Keys it still remembers (P2)."""
    sends: list[str] = field(default_factory=list)
    """Keys in the order they were sent."""
    polls: list[str] = field(default_factory=list)
    before_answer: Callable[[ClaimedTask], Awaitable[None]] | None = None
    """Awaited when the request has had its effect, before it is answered."""
    unknown: bool = False
    """Polls are answered with 404."""
    share_per_s: float = 10_000.0

    def tell(self, *answers: Scripted) -> None:
        """Answers of the next create calls, in order; None: accept."""
        self.script.extend(answers)

    async def create(self, task: ClaimedTask) -> CreateAnswer:
        self.sends.append(task.idempotency_key)
        answer = self._decide(task, self.script.popleft() if self.script else None)
        if self.before_answer is not None:
            await self.before_answer(task)
        return answer

    async def create_batch(self, tasks: Sequence[ClaimedTask]) -> list[CreateAnswer] | None:
        return [await self.create(task) for task in tasks]

    async def slots(self) -> Slots | None:
        return None

    async def balance(self, now_ms: int) -> BalanceAnswer:
        return BalanceAnswer(BalanceEnd.ABSENT)

    def _decide(self, task: ClaimedTask, scripted: Scripted) -> CreateAnswer:
        if isinstance(scripted, CreateAnswer):
            return scripted
        if isinstance(scripted, Answer):
            return CreateAnswer(
                scripted, http_status=None if scripted is Answer.LOST else 499, code=scripted.value
            )
        if task.idempotency_key in self.bound:
            # The 409 names no task (P3).
            return CreateAnswer(Answer.EXISTS, 409, "RESOURCE_ALREADY_EXISTS")
        created = self.accept(task.idempotency_key, self.to_charge or task.credits_estimate)
        if scripted == LOSE:
            return CreateAnswer(Answer.LOST)
        return CreateAnswer(
            Answer.ACCEPTED, 200, provider_task_id=created.id, credits_to_charge=created.to_charge
        )

    def accept(self, key: str, to_charge: Decimal) -> Accepted:
        """Store a task under a key, as a create call does."""
        tasks = self.accepted.setdefault(key, [])
        created = Accepted(f"pt-{len(self.accepted)}-{len(tasks)}", key, to_charge)
        tasks.append(created)
        self.bound.add(key)
        return created

    def finish(
        self, key: str, status: str = "COMPLETED", *, charged: Decimal | None = None, text: str = "answer"
    ) -> Accepted:
        """End a task: completed and charged as promised, or failed for free, unless `charged` says other."""
        task = self.accepted[key][-1]
        due = task.to_charge if status == "COMPLETED" else Decimal(0)
        task.status, task.charged = status, due if charged is None else charged
        error = {"code": "INTERNAL_SERVER_ERROR", "message": "Task failed after max retries"}
        task.response = {"text": text} if status == "COMPLETED" else {"error": error}
        return task

    def forget(self, keys: Iterable[str]) -> None:
        """The end of retention: keys are free again, and polls find nothing."""
        self.bound -= set(keys)

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        self.polls.append(task_id_or_key)
        found = [
            task
            for tasks in self.accepted.values()
            for task in tasks
            if task.id == task_id_or_key and task.key in self.bound
        ]
        if self.unknown or not found:
            return PollAnswer(found=False)
        if found[0].status in ("COMPLETED", "FAILED"):
            return PollAnswer(found=True, finished=True, body=found[0].body())
        return PollAnswer(found=True)

    def bill(self) -> dict[str, Decimal]:
        """Idempotency key -> what it has charged for it."""
        return {
            key: sum((task.charged or Decimal(0) for task in tasks), Decimal(0))
            for key, tasks in self.accepted.items()
        }


def _plain(amount: Decimal | None) -> float | int | None:
    if amount is None:
        return None
    return int(amount) if amount == amount.to_integral_value() else float(amount)
