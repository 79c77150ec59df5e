"""What the drill counts and says."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from app.store import Store
from app.store.tables import deliveries, submissions

if TYPE_CHECKING:
    from benchmarks.drill.under_load import Drill, Size

SHARE_MIN = 0.98
"""Of the provider's limit, in the part without faults."""
LOGGED_SHOWN = 6


@dataclass
class Fault:
    """One that has been, for the table."""

    name: str
    from_ms: int
    to_ms: int = 0
    """Until the next fault began."""


async def quiet(drill: "Drill") -> dict[str, Any]:
    """The rate that the emulator counted while nothing happened, and how many it refused."""
    await drill.until_more_settled()
    begin = int(time.time()) + 1
    drill.begin("none")
    await asyncio.sleep(drill.size.quiet_s)
    counts = [n for second, n in drill.cluster.seconds() if begin < second < int(time.time()) - 1]
    since = sa.select(sa.func.count()).where(submissions.c.at_ms >= begin * 1000)
    (refusals,) = await numbers(drill.cluster.store, since.where(submissions.c.http_status == 429))
    (repeats,) = await numbers(drill.cluster.store, since.where(submissions.c.answer == "exists"))
    shares = [count / drill.size.rate_per_s for count in counts]
    return {
        "mean_share": round(statistics.fmean(shares), 4),
        "median_share": round(statistics.median(shares), 4),
        "busiest_second": max(counts),
        "refused_429": refusals,
        "repeats": repeats,
    }


async def numbers(store: Store, query: "sa.Select[Any]") -> list[int]:
    """One column."""

    async def work(connection: Any) -> list[int]:
        return list((await connection.scalars(query)).all())

    return await store.db.read(work)


async def wrong(drill: "Drill") -> dict[str, Any]:
    """What was lost, doubled, or stands in the books and cannot be explained."""
    cluster, count = drill.cluster, drill.size.tasks
    books = await asyncio.to_thread(cluster.books)
    charged = await cluster.store.reports.charges(cluster.run_id)
    theirs = {row["idempotencyKey"]: Decimal(row["creditsCharged"]) for row in books["tasks"]}
    verified = await asyncio.to_thread(cluster.tallyhook, "verify", "--all", "--json")
    document = json.loads(verified.stdout)
    return {
        "tasks": count,
        "lost": count - await drill.settled(),
        "doubled": len(books["tasks"]) - count,
        "unexplained": sum(charged.get(key) != theirs.get(key) for key in charged | theirs),
        "differences": document["differences_count"],
        "verified": verified.returncode == 0,
    }


def longest_gap_s(times_ms: Sequence[int], fault: Fault) -> float | None:
    """Of the gaps that touch the time of a fault; None without two events."""
    gaps = [(b - a) for a, b in pairwise(times_ms) if a < fault.to_ms and b > fault.from_ms]
    return max(gaps) / 1000 if gaps else None


async def gaps(drill: "Drill") -> list[dict[str, Any]]:
    """A row for each fault, and one for all."""
    sent = sa.select(submissions.c.at_ms).where(submissions.c.answer == "accepted")
    received = sa.select(deliveries.c.received_at_ms).where(deliveries.c.source == "delivery")
    times = {
        "sending_gap_s": sorted(await numbers(drill.cluster.store, sent)),
        "receiving_gap_s": sorted(await numbers(drill.cluster.store, received)),
    }
    last = drill.faults.pop()
    all_of_it = Fault("all of it", drill.faults[0].from_ms, last.from_ms)
    return [
        {"fault": one.name, "seconds": round((one.to_ms - one.from_ms) / 1000, 1)}
        | {name: longest_gap_s(series, one) for name, series in times.items()}
        for one in (*drill.faults, all_of_it)
    ]


def logged(drill: "Drill") -> dict[str, Any]:
    """Warnings and errors of all processes: how many, and which one process said most often."""
    lines = drill.cluster.logged()
    often = [f"{event} of {name} {count:,}" for (name, event), count in lines.most_common(LOGGED_SHOWN)]
    return {"logged": sum(lines.values()), "logged_most": often}


def asked(drill: "Drill") -> dict[str, int]:
    """Of the API."""
    return {"api_asked": drill.asked, "api_unanswered": drill.unanswered}


def failings(figures: dict[str, Any]) -> list[str]:
    """Why the drill failed, in words; none when it did not."""
    found = [f"{figures[name]} {name}" for name in ("lost", "doubled", "unexplained") if figures[name]]
    if not figures["verified"]:
        found.append(f"verify --all found {figures['differences']} differences")
    return found


def missed_rate(figures: dict[str, Any]) -> list[str]:
    """What was wrong with the rate, in words."""
    found = []
    if figures["mean_share"] < SHARE_MIN:
        found.append(f"{figures['mean_share']:.1%} of the provider's limit, not {SHARE_MIN:.0%}")
    if figures["refused_429"]:
        found.append(f"{figures['refused_429']} calls refused with 429 while nothing happened")
    return found


def table(figures: dict[str, Any], size: "Size") -> str:
    """For a person."""

    def gap(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} s"

    lines = [f"{'fault':<34}{'lasted':>10}{'longest gap in sending':>26}{'in receiving':>16}"]
    lines += [
        f"{row['fault']:<34}{row['seconds']:>8.1f} s"
        f"{gap(row['sending_gap_s']):>26}{gap(row['receiving_gap_s']):>16}"
        for row in figures["rows"]
    ]
    names = ("tasks", "lost", "doubled", "unexplained")
    counted = "   ".join(f"{name} {figures[name]:,}" for name in ("faults", *names))
    lines += [
        "",
        counted,
        f"without faults, of the provider's {size.rate_per_s}/s: "
        f"mean {figures['mean_share']:.1%}, median second {figures['median_share']:.1%}",
        f"busiest second {figures['busiest_second']}, refused with 429: {figures['refused_429']}, "
        f"sent though the provider had it: {figures['repeats']}",
        f"API asked {figures['api_asked']:,} times, not answered {figures['api_unanswered']:,}",
        f"verify --all: {figures['differences']} differences",
        f"warnings and errors logged: {figures['logged']:,}; most often {', '.join(figures['logged_most'])}",
    ]
    return "\n".join(lines)
