"""Reports as documents, for the tests of their pages: an ordinary one, and those at the edges."""

import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from app.views.report import per_usable

ENGINES = ("AIMODE", "CHATGPT", "COPILOT", "GEMINI", "GOOGLE", "GOOGLE_NEWS", "GROK", "PERPLEXITY")
COUNTRIES = ("US", "DE", "FR", "GB", "JP", "BR", None)
CLOSED = ("completed", "failed", "rejected", "expired", "cancelled")
PROMPTS = (
    "best project management software for small law firms in 2026",
    "ما هي أفضل برامج إدارة المشاريع للشركات الصغيرة؟",
    "小規模企業向けの最高のプロジェクト管理ソフトウェアは何ですか？料金と評判も教えてください。",
    "https://www.google.com/search?q=" + "running+shoes+for+wide+feet+" * 6,
    "What would you recommend? " * 8,
    "איזה טלפון הכי טוב?",
)


def document(**changes: Any) -> dict[str, Any]:
    """A small report, with a little of everything; as app.views.report.full_report_document gives it."""
    return {
        "run": run(),
        "finished": True,
        "tasks": 1_200,
        "open": 0,
        **_states(completed=1_199, failed=1),
        "duplicates": 3,
        "swept": 2,
        "recovered_submits": 1,
        "repeats": [],
        "reused": 0,
        "money_open": 1,
        "verdicts": {"matched": 1_190, "overcharged": 9, "unknown": 1, "conflict": 0},
        "credits": {"estimate": 6_000, "charged": "6000.5", "held": 5, "posted": "6000.5", "voided": 5},
        "findings": [
            finding(0, verdict="overcharged", task_id="t-1", actual="5.5", detail="completed"),
            finding(1, verdict="unknown", task_id="t-2", actual=None, detail="no charge"),
        ],
        "findings_count": 10,
        "pruned": None,
        "adjusted": "-0.5",
        "usable_chars_min": 20,
        "exposure": {"in_flight": {"attempts": 0, "credits": 0}, "unknown": {"attempts": 1, "credits": 5}},
        "by_engine_country": [
            part("CHATGPT", "US", 1_000, failed=1, posted="5000.5", held=5, short=9, swept=20),
            part("GOOGLE", None, 200, posted=1_000),
        ],
        "by_day": [
            {"day": "2026-09-21", "task_type": "CHATGPT", "posted": "5000.5"},
            {"day": "2026-09-24", "task_type": "GOOGLE", "posted": 1_000},
        ],
        "latency": [latency("CHATGPT", 1_000, {2_000: 990, None: 10})],
        **changes,
    }


def run(**changes: Any) -> dict[str, Any]:
    """The run of a report."""
    return {
        "id": "01a2b3c4-0192-7000-8000-0123456789ab",
        "name": "monday",
        "source": "p.csv",
        "account": "default",
        "state": "running",
        "reason": None,
        "budget": None,
        "bad_lines": 0,
        "created_at": "2026-09-21T14:13:20.000Z",
        "finished_at": "2026-09-24T09:00:00.000Z",
        **changes,
    }


def _states(**counts: int) -> dict[str, int]:
    return dict.fromkeys(("pending", "submitting", "submitted", *CLOSED), 0) | counts


def part(engine: str, country: str | None, tasks: int, **changes: Any) -> dict[str, Any]:
    """What one engine did in one country: all completed but what is said."""
    failed, still, short = (changes.get(name, 0) for name in ("failed", "open", "short"))
    completed = tasks - failed - still
    posted = Decimal(changes.get("posted", 5 * tasks))
    return {
        "task_type": engine,
        "country": country,
        "tasks": tasks,
        "completed": completed,
        "usable": completed - short,
        "short": 0,
        "unmeasured": 0,
        "failed": 0,
        "unanswered": 0,
        "open": 0,
        "posted": 5 * tasks,
        "held": 0,
        "posted_per_usable": per_usable(posted, completed - short),
        "reported": tasks - still,
        "swept": 0,
        "p50_ms": 1_400,
        "p95_ms": 9_000,
        **changes,
    }


def latency(engine: str, tasks: int, counts: dict[int | None, int]) -> dict[str, Any]:
    """How long one engine's tasks took; by the upper end of each class."""
    return {
        "task_type": engine,
        "tasks": tasks,
        "p50_ms": 1_500,
        "p90_ms": 4_000,
        "p95_ms": 9_000,
        "p99_ms": 65_000,
        "max_ms": 100_000_000,
        "histogram": [{"below_ms": below, "tasks": count} for below, count in counts.items()],
    }


def finding(n: int, **changes: Any) -> dict[str, Any]:
    """The n-th finding."""
    return {
        "verdict": ("overcharged", "charged_failure", "repriced")[n % 3],
        "task_id": f"01a2b3c4-{n:04}-7000-8000-0123456789ab",
        "attempt": 1 + n % 2,
        "expected": 5,
        "actual": 7 + n,
        "detail": "the task was completed, and more was charged than its price",
        "delivery_id": "d",
        "ordinal": 17 * n + 1,
        "task_type": ENGINES[n % len(ENGINES)],
        "country": COUNTRIES[n % len(COUNTRIES)],
        "prompt": PROMPTS[n % len(PROMPTS)],
        **changes,
    }


def large(tasks_of_each: int = 18_000, days: int = 60) -> dict[str, Any]:
    """A million tasks of all engines and countries, over two months."""
    rng = random.Random(1)
    parts = [
        part(e, c, tasks_of_each + rng.randrange(900), failed=rng.randrange(90), held=0)
        for e in ENGINES
        for c in COUNTRIES
    ]
    tasks, failed = sum(p["tasks"] for p in parts), sum(p["failed"] for p in parts)
    first = date(2026, 8, 1)
    return document(
        run=run(name="all markets, autumn", source="prompts/2026/autumn/all-markets.csv", bad_lines=12),
        tasks=tasks,
        **_states(completed=tasks - failed, failed=failed),
        verdicts={"matched": tasks - 4_740, "free_failure": 4_700, "overcharged": 37, "conflict": 3},
        by_engine_country=parts,
        by_day=[
            {
                "day": (first + timedelta(days=n)).isoformat(),
                "task_type": e,
                "posted": rng.randrange(20_000) if e != "GROK" else 40,
            }
            for n in range(days)
            for e in ENGINES
        ],
        latency=[
            latency(
                e,
                126_000,
                {1_000: 4, 5_000: 700, 10_000: 41_000, 30_000: 70_000, 60_000: 14_000, 3_600_000: 2},
            )
            for e in ENGINES
        ],
        findings=[finding(n) for n in range(40)],
        findings_count=40,
    )


def going() -> dict[str, Any]:
    """A run that is paused half way."""
    return document(
        run=run(
            state="paused",
            reason="the account has no credits left; goes on by itself when there are some",
            finished_at=None,
            budget="12500.5",
        ),
        finished=False,
        tasks=5_000,
        open=2_600,
        **_states(completed=2_300, failed=60, rejected=40, submitted=80, submitting=20, pending=2_500),
        by_engine_country=[part("CHATGPT", "US", 5_000, failed=60, open=2_600, posted=11_500, held=400)],
        by_day=[{"day": "2026-09-21", "task_type": "CHATGPT", "posted": 11_500}],
        verdicts={"matched": 2_300, "free_failure": 60},
        findings=[],
        findings_count=0,
    )


def empty() -> dict[str, Any]:
    """A run of no task."""
    nothing = {"attempts": 0, "credits": 0}
    return document(
        tasks=0,
        **_states(),
        verdicts={"matched": 0},
        credits=dict.fromkeys(("estimate", "charged", "held", "posted", "voided"), 0),
        exposure={"in_flight": nothing, "unknown": nothing},
        duplicates=0,
        swept=0,
        recovered_submits=0,
        money_open=0,
        adjusted=0,
        by_engine_country=[],
        by_day=[],
        latency=[],
        findings=[],
        findings_count=0,
    )


def single() -> dict[str, Any]:
    """A run of one task."""
    return empty() | {
        "tasks": 1,
        "completed": 1,
        "verdicts": {"matched": 1},
        "credits": {"estimate": 5, "charged": 5, "held": 0, "posted": 5, "voided": 5},
        "by_engine_country": [part("CHATGPT", "US", 1)],
        "by_day": [{"day": "2026-09-21", "task_type": "CHATGPT", "posted": 5}],
        "latency": [latency("CHATGPT", 1, {20_000: 1})],
    }


def foreign() -> dict[str, Any]:
    """Names and texts in other writings, and longer than anybody expects."""
    long = "ReallyLongNameWithoutAnyBlank" * 8
    return document(
        run=run(name="تشغيل يوم الاثنين 世界のブランド", source=f"/data/{long}.csv", account="אירופה"),
        findings=[finding(n, detail=f"支払いが予定より多い: {long}" if n % 2 else "نص") for n in range(6)],
        by_engine_country=[part("CHATGPT", "US", 1_000), part(long[:60], "DE", 200)],
        by_day=[{"day": "2026-09-21", "task_type": e, "posted": 5} for e in ("CHATGPT", long[:60])],
        latency=[latency("CHATGPT", 1_000, {2_000: 990, None: 10}), latency(long[:60], 1, {2_000: 1})],
    )


DOCUMENTS = {
    "small": document,
    "large": large,
    "going": going,
    "empty": empty,
    "single": single,
    "foreign": foreign,
}
