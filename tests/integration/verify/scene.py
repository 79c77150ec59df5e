"""Books in which much has happened, made by the code that makes them in production: signed deliveries, polls
and a sync answer, each read, decided and settled. What each task is for stands beside its name.
"""

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from app.cli.evidence.verify import VerifyPlan, reading_of
from app.config import load_settings
from app.domain.accounting.adjustment import adjustment_reason
from app.domain.accounting.balances import Balance
from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.sync_call import SyncAnswer, SyncEnd
from app.domain.task import TaskSpec, new_id
from app.provider.signature import sign
from app.provider.sync import encode_sync_report
from app.provider.wire import read_report
from app.services.booking import book
from app.services.settle import settle
from app.services.verify.books import VerifyTotals, conclude, verify_rest, verify_share
from app.services.verify.evidence import Reading
from app.store import Store
from app.store.read.verification import BooksSnapshot
from tests.clock import SteppedClock

SECRET = "whsec_of_the_scene"
FIVE = Decimal(5)
NAMES = (
    "matched",
    "failed",
    "overcharged",
    "undercharged",
    "unknown",
    "filled",
    "conflict",
    "duplicate",
    "overtaken",
    "lost_then_exists",
    "rejected",
    "retried",
    "double",
    "clusters",
    "repriced",
    "keyless",
    "expired",
    "submitted",
    "never_sent",
)
"""Tasks of the run, by what happens to them."""


@dataclass
class Scene:
    """One run's worth of books, and who made them."""

    store: Store
    clock: SteppedClock
    run_id: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    """Name -> task id."""
    delivered: dict[str, list[str]] = field(default_factory=dict)
    """Name -> delivery ids, in the order in which they came."""
    claimed: dict[str, ClaimedTask] = field(default_factory=dict)

    async def claim(self) -> None:
        """Claim whatever is due."""
        names = {task_id: name for name, task_id in self.ids.items()}
        taken = await self.store.submissions.claim_pending(
            limit=1_000, claim="me", now_ms=self.clock(), lease_until_ms=self.clock() + 60_000
        )
        self.claimed = {names[task.id]: task for task in taken}

    def ended(self, name: str, answer: Answer = Answer.ACCEPTED, **changes: Any) -> Submission:
        """The end of one send, now."""
        task = self.claimed[name]
        acceptance = {
            "provider_task_id": f"p-{name}-{task.attempt}",
            "credits_to_charge": task.credits_estimate,
        }
        base = Submission(task, answer, self.clock(), next_poll_at_ms=self.clock() + 600_000)
        return replace(base, **((acceptance if answer is Answer.ACCEPTED else {}) | changes))

    def body(self, name: str, charged: int | None = 5, *, attempt: int = 1, **changes: Any) -> bytes:
        """A report; `changes` of status, key, to_charge and response."""
        key = changes.get("key", f"{self.ids[name]}.{attempt}")
        failed = changes.get("status") == "FAILED"
        answer = (
            {"error": {"code": "TIMEOUT", "message": "no answer"}} if failed else {"text": f"on {name} " * 90}
        )
        return json.dumps(
            {
                "task": {
                    "id": f"p-{name}-{attempt}",
                    "status": changes.get("status", "COMPLETED"),
                    "idempotencyKey": key,
                },
                "credits": {"creditsToCharge": changes.get("to_charge", 5), "creditsCharged": charged},
                "response": changes.get("response", answer),
            }
        ).encode()

    async def hear(self, name: str, body: bytes, source: Source = Source.DELIVERY) -> None:
        """Receive and settle one report."""
        now = self.clock.advance(1_000)
        signed = {
            "webhook_id": f"w-{now}",
            "signed_at": str(now // 1000),
            "signature": sign(SECRET, str(now // 1000), body),
            "account": "default",
        }
        raw = RawDelivery(new_id(now), source, now, body, **(signed if source is Source.DELIVERY else {}))
        await self.store.inbox.store_deliveries([raw], due_at_ms=now)
        self.delivered.setdefault(name, []).append(raw.id)
        self.clock.advance(50)
        await settle(self.store, read_report, [raw.id], clock=self.clock, unmatched_ms=0)


async def make_scene(store: Store, clock: SteppedClock | None = None) -> Scene:
    """Everything that may happen to a task, once."""
    clock = clock or SteppedClock()
    scene = Scene(store, clock)
    scene.run_id = await store.runs.create_run(name="scene", source="-", budget=None, now_ms=clock())
    specs = [
        TaskSpec(n, "CHATGPT", {"prompt": name, "country": "DE"}) for n, name in enumerate(NAMES, start=1)
    ]
    products = {"prompt": "clusters", "country": "US", "include": {"expandProducts": True}}
    specs[NAMES.index("clusters")] = TaskSpec(NAMES.index("clusters") + 1, "AIMODE", products)
    ids = await store.runs.add_tasks(scene.run_id, [(spec, FIVE) for spec in specs], clock())
    scene.ids = dict(zip(NAMES, ids, strict=True))
    await store.runs.start_run_if_loading(scene.run_id, sha256="0" * 64, bad_lines=0)
    await scene.claim()
    await _submit(scene)
    await _report(scene)
    await _retry(scene)
    await _beside(scene)
    return scene


async def _submit(scene: Scene) -> None:
    special = {"lost_then_exists", "rejected", "overtaken", "repriced", "never_sent"}
    ended = [scene.ended(name) for name in NAMES if name not in special]
    ended += [
        scene.ended("lost_then_exists", Answer.LOST),
        scene.ended("rejected", Answer.REJECTED, http_status=422, code="INVALID", message="bad country"),
        scene.ended("repriced", credits_to_charge=Decimal(7)),
        scene.ended("never_sent", Answer.RATE_LIMITED, http_status=429, not_before_ms=scene.clock() + 10**9),
    ]
    scene.clock.advance(200)
    await scene.store.submissions.record_submissions(ended)
    late = scene.ended("overtaken")
    await scene.hear("overtaken", scene.body("overtaken"))
    await scene.claim()
    await scene.store.submissions.record_submissions(
        [late, scene.ended("lost_then_exists", Answer.EXISTS, http_status=409)]
    )


async def _report(scene: Scene) -> None:
    hear, body = scene.hear, scene.body
    await hear("matched", body("matched"))
    await hear("failed", body("failed", 0, status="FAILED"))
    await hear("overcharged", body("overcharged", 9))
    await hear("undercharged", body("undercharged", 2))
    await hear("unknown", body("unknown", None))
    await hear("filled", body("filled", None))
    await hear("filled", body("filled", 5), Source.POLL)
    await hear("conflict", body("conflict"))
    await hear("conflict", body("conflict", 8))
    await hear("duplicate", body("duplicate"))
    await hear("duplicate", body("duplicate"))
    await hear("lost_then_exists", body("lost_then_exists"))
    await hear("retried", body("retried", 0, status="FAILED"))
    await hear("clusters", body("clusters", 7, response={"text": "see", "productResults": [{}, {}]}))
    await hear("repriced", body("repriced", 7, to_charge=7))
    await hear("keyless", body("keyless", key=None))
    await hear("stranger", scene.body("matched", key="not-ours").replace(b"p-matched-1", b"p-stranger"))


async def _retry(scene: Scene) -> None:
    """`retried` fails and then succeeds; `double` expires, is bought again, and is charged for both."""
    lost = [(scene.ids["double"], 1), (scene.ids["expired"], 1)]
    await scene.store.polls.expire_if_unreported(lost, code="retention_over", reason="no report came")
    await scene.store.retries.retry_tasks_if_closed(
        [scene.ids["retried"], scene.ids["double"]], scene.clock()
    )
    await scene.claim()
    await scene.store.submissions.record_submissions([scene.ended("retried"), scene.ended("double")])
    await scene.hear("retried", scene.body("retried", attempt=2))
    await scene.hear("double", scene.body("double", attempt=2))
    await scene.hear("double", scene.body("double", attempt=1))


async def _beside(scene: Scene) -> None:
    """A sync call that was answered, one that was refused, a reused answer, an allocation, a correction."""
    store, clock = scene.store, scene.clock
    for name, end in (
        ("asked", SyncAnswer(SyncEnd.ANSWERED, 200, b'{"text":"sync"}', Decimal(7), request_id="r-1")),
        ("refused", SyncAnswer(SyncEnd.REFUSED, 422, code="INVALID", message="no")),
    ):
        spec = TaskSpec(1, "CHATGPT", {"prompt": name, "country": "DE"})
        _, scene.ids[name] = await store.sync_calls.open_call(
            spec, Decimal(7), name=name, account="default", next_poll_at_ms=clock() + 10**8, now_ms=clock()
        )
        answer = Answer.ACCEPTED if end.end is SyncEnd.ANSWERED else Answer.REJECTED
        await store.sync_calls.log_call(scene.ids[name], answer, end, clock())
        if end.end is SyncEnd.ANSWERED:
            await scene.hear(name, encode_sync_report(f"{scene.ids[name]}.1", end), Source.SYNC)
        else:
            await store.sync_calls.void_call(
                scene.ids[name], code=end.code, message=end.message, now_ms=clock()
            )
    second = await store.runs.create_run(
        name="second", source="-", budget=None, now_ms=clock(), reuse_within_ms=10**9
    )
    prompt = TaskSpec(1, "CHATGPT", {"prompt": "matched", "country": "DE"})
    kept = await store.loading.store_chunk(
        second, [(prompt, FIVE)], after=0, known_to=0, merge=False, now_ms=clock()
    )
    assert kept.reused == 1
    await store.loading.finish_loading(second, sha256="1" * 64, bad_lines=0, last=1)
    balance = Balance(clock(), Decimal(900), Decimal(1_000), clock() + 20 * 86_400_000)
    await store.accounts.store_balance("default", balance)
    assert [entry.kind for entry in await book(store, "default", clock())][:1] == ["allocation"]
    about = {"account": "default", "run_id": scene.run_id, "task_id": scene.ids["overcharged"], "attempt": 1}
    reason = adjustment_reason(Decimal(4), "refund agreed in ticket 123")
    await store.adjustments.add_adjustment(Decimal(4), reason, now_ms=clock(), **about)


def scene_reading(*secrets: str) -> Reading:
    """As the command reads, with these secrets; none: the scene's."""
    return reading_of(
        VerifyPlan(load_settings(_env_file=None), {"default": secrets or (SECRET,)}, 300, False)
    )


async def verified(snapshot: BooksSnapshot, *secrets: str) -> VerifyTotals:
    """The whole of the books, in this process."""
    reading = scene_reading(*secrets)
    totals = await verify_share(snapshot, await snapshot.runs(None, []), reading)
    totals.add(await verify_rest(snapshot, reading, account=None, default_account="default"))
    conclude(totals, await snapshot.receipts())
    return totals
