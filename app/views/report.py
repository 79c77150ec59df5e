"""The whole report on a run as a JSON document; terminal and page are drawn from it, and from nothing else.

Credits are exact: an integer, or the decimal as text. Times are milliseconds, days are UTC.
"""

from decimal import Decimal

from app.domain.credits import to_json_number
from app.domain.task import OPEN_STATES, TaskState
from app.domain.text import USABLE_CHARS_MIN
from app.domain.time_format import iso_utc
from app.store.read.breakdown import BUCKETS_MS, PERCENTILES, CreditsAtStake, Latency
from app.store.read.engine_countries import EngineCountry
from app.store.read.reports import FullReport
from app.views.runs import Document, report_document

UNANSWERED_STATES = (TaskState.REJECTED, TaskState.EXPIRED, TaskState.CANCELLED)
MICRO = Decimal("0.000001")


def full_report_document(full: FullReport, usable_chars_min: int = USABLE_CHARS_MIN) -> Document:
    """The books of a run, and the parts of their sums."""
    parts, gone = full.breakdown, full.pruned
    pruned = {"answers": gone.answers, "sends": gone.sends, "findings": gone.findings}
    return report_document(full.report, full.findings) | {
        "pruned": pruned | {"first_at": iso_utc(gone.at_ms)} if gone else None,
        "usable_chars_min": usable_chars_min,
        "adjusted": to_json_number(parts.adjusted),
        "findings_count": parts.findings,
        "exposure": {"in_flight": _exposure(parts.in_flight), "unknown": _exposure(parts.unknown)},
        "by_engine_country": [_engine_country(row) for row in parts.engine_countries],
        "by_day": [
            {"day": row.day, "task_type": row.task_type, "posted": to_json_number(row.posted)}
            for row in parts.days
        ],
        "latency": [_latency(row) for row in parts.latencies],
        "repeats": [row._asdict() for row in full.repeated],
    }


def _exposure(exposure: CreditsAtStake) -> Document:
    return {"attempts": exposure.attempts, "credits": to_json_number(exposure.credits)}


def _engine_country(row: EngineCountry) -> Document:
    usable = row.states.get("completed", 0) - row.short
    return {
        "task_type": row.task_type,
        "country": row.country,
        "tasks": row.tasks,
        "completed": row.states.get("completed", 0),
        "usable": usable,
        "short": row.short,
        "unmeasured": row.unmeasured,
        "failed": row.states.get("failed", 0),
        "unanswered": sum(row.states.get(state, 0) for state in UNANSWERED_STATES),
        "open": sum(row.states.get(state, 0) for state in OPEN_STATES),
        "posted": to_json_number(row.posted),
        "held": to_json_number(row.held),
        "posted_per_usable": per_usable(row.posted, usable),
        "reported": row.reported,
        "swept": row.swept,
        "p50_ms": row.p50_ms,
        "p95_ms": row.p95_ms,
    }


def per_usable(posted: Decimal, usable: int) -> str | int | None:
    """Credits for each answer that can be used, to a millionth; null: there is none."""
    return to_json_number((posted / usable).quantize(MICRO) if usable else None)


def _latency(row: Latency) -> Document:
    percentiles = {f"p{p}_ms": ms for p, ms in zip(PERCENTILES, row.percentiles_ms, strict=True)}
    classes = zip((*BUCKETS_MS, None), row.counts, strict=True)
    return {
        "task_type": row.task_type,
        "tasks": row.tasks,
        **percentiles,
        "max_ms": row.max_ms,
        # below_ms null: above the last class. Classes without tasks are left out.
        "histogram": [{"below_ms": below, "tasks": count} for below, count in classes if count],
    }
