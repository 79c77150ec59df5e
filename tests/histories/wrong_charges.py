"""Wrong charges, put in by the test: for each verdict 1,000 tasks of which 50 are wrong, and among the others
all that only looks wrong. All of the 50 must be found and nothing else:

    python -m tests.histories.wrong_charges --seeds 100
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.domain.pricing import estimate
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import Money, TaskSpec
from app.domain.verdicts import Verdict
from tests.histories.books import Rows
from tests.histories.stored import StoredBooks, stored_books

TASKS, WRONG = 1_000, 50
MADE_MS, REPORTED_MS = (
    1_787_000_000_000,
    1_788_500_000_000,
)  # 2026-08-17 and 2026-09-04, new prices in between
MADE_DAY, REPORTED_DAY = "2026-08-17", "2026-09-04"
QUESTIONS: list[tuple[str, dict[str, object]]] = [
    ("CHATGPT", {"prompt": "p", "country": "US", "state": "CA", "include": {"ads": True}}),
    ("PERPLEXITY", {"prompt": "p", "country": "US"}),
    ("AIMODE", {"prompt": "p", "country": "US", "include": {"expandProducts": True}}),
    ("GEMINI", {"prompt": "p", "country": "US"}),
    ("GOOGLE", {"query": "q", "country": "US", "pages": 4}),
]


@dataclass
class Case:
    """One task and what the provider says about it."""

    task: ClaimedTask
    due: int
    """What it rightly costs: today's price and the clusters returned."""
    promised: int
    completed: bool = True
    charged: object = None
    clusters: int = 0

    def body(self, **changes: Any) -> bytes:
        """The report of it (C-I.1)."""
        columns: dict[str, Any] = {
            "status": "COMPLETED" if self.completed else "FAILED",
            "charged": self.charged,
            "text": "an answer",
            "id": f"pt-{self.task.idempotency_key}",
            "key": self.task.idempotency_key,
        } | changes
        credits = {"creditsToCharge": self.promised, "creditsCharged": columns["charged"]}
        if columns["charged"] == "missing":
            del credits["creditsCharged"]
        response = {"text": columns["text"], "productResults": [{}] * self.clusters}
        task = {"id": columns["id"], "status": columns["status"], "idempotencyKey": columns["key"]}
        return json.dumps({"task": task, "credits": credits, "response": response}).encode()


@dataclass
class Scene:
    """1,000 tasks at the moment at which their reports are written."""

    rng: random.Random
    books: StoredBooks
    cases: list[Case]
    wrong: set[int]
    """Places of the 50 in `cases`."""
    reports: list[bytes] = field(default_factory=list)
    """In the end all are received in a random order."""
    later: list[bytes] = field(default_factory=list)
    """Received after the others."""
    names: set[str] = field(default_factory=set)
    """What must be found: keys, or what the finding says where there is none."""


def amount_too_much(case: Case, rng: random.Random) -> int:
    """Credits above what is due that no price explains."""
    return case.due + rng.randint(1, 9)


def _overcharged(scene: Scene, case: Case) -> None:
    case.charged = amount_too_much(case, scene.rng)
    scene.reports.append(case.body())


def _undercharged(scene: Scene, case: Case) -> None:
    # Perplexity's old price is what was promised, so it would be right.
    amounts = [credits for credits in range(case.due) if credits != case.promised]
    case.charged = scene.rng.choice(amounts)
    scene.reports.append(case.body())


def _charged_failure(scene: Scene, case: Case) -> None:
    case.completed, case.charged = False, scene.rng.randint(1, case.due + 3)
    scene.reports.append(case.body())


def _unknown(scene: Scene, case: Case) -> None:
    case.charged = scene.rng.choice([None, "missing"])
    case.completed = scene.rng.random() < 0.8
    scene.reports += [case.body()] * scene.rng.randint(1, 2)


def _conflict(scene: Scene, case: Case) -> None:
    scene.reports.append(case.body())
    other = "FAILED" if case.completed else "COMPLETED"
    changes = [{"status": other}, {"charged": case.due + 60}, {"text": "in other words"}]
    scene.later.append(case.body(**scene.rng.choice(changes)))


def _double_charged(scene: Scene, case: Case) -> None:
    """The first attempt is given up and tried again; then both turn out to be charged, in either order."""
    scene.books.give_up(case.task.idempotency_key)
    scene.books.retry(case.task.id, REPORTED_MS)
    [second] = scene.books.claim(1, REPORTED_MS)
    again = Case(second, case.due, case.promised, charged=case.due, clusters=case.clusters)
    scene.books.record([_accepted(again)])
    if scene.rng.random() < 0.5:
        scene.reports.append(again.body())
        scene.later.append(case.body())
        scene.names.add(case.task.idempotency_key)
    else:
        scene.reports.append(case.body())
        scene.later.append(again.body())
        scene.names.add(second.idempotency_key)


def _unmatched(scene: Scene, case: Case) -> None:
    stranger = f"stranger-{len(scene.names)}"
    scene.reports += [case.body(), case.body(id=stranger, key="somebody.else")]
    scene.names.add(f"provider task {stranger}")


def _right(scene: Scene, case: Case) -> None:
    """As it should be, though it may look wrong: doubled, first without a charge, clusters, a new price."""
    kind = scene.rng.random()
    if kind < 0.1:
        case.completed, case.charged = False, 0
    if kind < 0.2:
        scene.reports.append(case.body())
    scene.reports.append(case.body())


def _blank_first(scene: Scene, case: Case) -> None:
    """The charge comes with a second report."""
    scene.reports.append(case.body(charged=scene.rng.choice([None, "missing"])))
    scene.later.append(case.body())


INJECT: dict[Verdict, Callable[[Scene, Case], None]] = {
    Verdict.OVERCHARGED: _overcharged,
    Verdict.UNDERCHARGED: _undercharged,
    Verdict.CHARGED_FAILURE: _charged_failure,
    Verdict.REPRICED: _right,  # what is wrong is the promise
    Verdict.DOUBLE_CHARGED: _double_charged,
    Verdict.UNKNOWN: _unknown,
    Verdict.CONFLICT: _conflict,
    Verdict.UNMATCHED: _unmatched,
}
NAMED_BY_THEMSELVES = (Verdict.DOUBLE_CHARGED, Verdict.UNMATCHED)


def _accepted(case: Case) -> Submission:
    return Submission(
        case.task,
        Answer.ACCEPTED,
        MADE_MS,
        provider_task_id=f"pt-{case.task.idempotency_key}",
        credits_to_charge=Decimal(case.promised),
        http_status=200,
    )


def _prepare(verdict: Verdict, seed: int, books: StoredBooks) -> Scene:
    rng = random.Random(f"{seed} {verdict}")
    specs = []
    for n in range(1, TASKS + 1):
        task_type, payload = rng.choice(QUESTIONS)
        specs.append((TaskSpec(n, task_type, payload), estimate(task_type, payload, MADE_DAY)))
    books.load(specs, MADE_MS)
    wrong = set(rng.sample(range(TASKS), WRONG))
    cases = []
    for n, task in enumerate(books.claim(TASKS, MADE_MS)):
        promised = int(task.credits_estimate)
        clusters = rng.randint(0, 6) if task.task_type == "AIMODE" else 0
        due = int(estimate(task.task_type, json.loads(task.payload_json), REPORTED_DAY)) + clusters
        if verdict is Verdict.REPRICED and n in wrong:
            promised += rng.choice([-2, -1, 1, 2, 7])
            due = promised + clusters
        case = Case(task, due, promised, charged=due, clusters=clusters)
        cases.append(case)
    books.record([_accepted(case) for case in cases])
    return Scene(rng, books, cases, wrong)


def run_scene(verdict: Verdict, seed: int, books: StoredBooks) -> tuple[set[str], set[str], int]:
    """What must be found of one verdict, what was found, and how many other findings there were."""
    scene = _prepare(verdict, seed, books)
    for n, case in enumerate(scene.cases):
        if n in scene.wrong:
            INJECT[verdict](scene, case)
            if verdict not in NAMED_BY_THEMSELVES:
                scene.names.add(case.task.idempotency_key)
        elif verdict is Verdict.UNKNOWN and scene.rng.random() < 0.1:
            _blank_first(scene, case)
        else:
            _right(scene, case)
    scene.rng.shuffle(scene.reports)
    for bodies in (scene.reports, scene.later):
        for first in range(0, len(bodies), 200):
            books.receive(bodies[first : first + 200], Source.DELIVERY, REPORTED_MS)
    found, strays = _found(verdict, books.rows())
    return scene.names, found, strays


def _found(verdict: Verdict, rows: Rows) -> tuple[set[str], int]:
    if verdict is Verdict.UNKNOWN:
        # Reported later, it is no longer unknown; the finding stays as its history.
        found = {row.key for row in rows.attempts if row.verdict is verdict and row.money is Money.HELD}
        return found, sum(one.verdict is not verdict for one in rows.findings)
    found = {one.key or one.detail for one in rows.findings if one.verdict is verdict}
    return found, sum(one.verdict is not verdict for one in rows.findings)


def measure(seeds: int, books: StoredBooks, first: int = 0) -> dict[str, Any]:
    """Precision and recall of each verdict over all seeds, and the findings that nobody caused."""
    result: dict[str, Any] = {}
    for verdict in INJECT:
        hits = wanted = given = stray = 0
        for seed in range(first, first + seeds):
            due, found, strays = run_scene(verdict, seed, books)
            hits, wanted, given = hits + len(due & found), wanted + len(due), given + len(found)
            stray += strays
        result[verdict.value] = {
            "wrong": wanted,
            "found": given,
            "precision": hits / max(given, 1),
            "recall": hits / max(wanted, 1),
            "other_findings": stray,
        }
    return result


def main() -> int:
    """Exit code 1 unless every figure is 1.0 and nothing else was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories.wrong_charges", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    seeds, began = parser.parse_args().seeds, time.monotonic()
    with stored_books() as books:
        result = measure(seeds, books)
    for name, figures in result.items():
        sys.stdout.write(f"{name:16} {json.dumps(figures)}\n")
    seconds = round(time.monotonic() - began, 1)
    perfect = all(is_perfect(figures) for figures in result.values())
    sys.stdout.write(json.dumps({"seeds": seeds, "seconds": seconds, "perfect": perfect}) + "\n")
    return 0 if perfect else 1


def is_perfect(figures: dict[str, Any]) -> bool:
    """All found, and nothing else."""
    return figures["precision"] == figures["recall"] == 1.0 and figures["other_findings"] == 0


if __name__ == "__main__":
    sys.exit(main())
