"""Runs random histories and counts what happened in them."""

from collections import Counter
from dataclasses import dataclass, field

import hypothesis
from hypothesis import HealthCheck, Phase, given

from tests.histories.checks import check
from tests.histories.history import History
from tests.histories.stored import StoredBooks
from tests.histories.strategies import histories


@dataclass
class Tally:
    """What the histories were made of; zeros would mean that they tested nothing."""

    histories: int = 0
    steps: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, history: History, steps: int) -> None:
        """One history that ended well."""
        rows, account = history.books.rows(), history.provider.organization.account
        self.steps += steps
        self.verdicts.update(row.verdict.value for row in rows.attempts if row.verdict)
        self.findings.update(one.verdict.value for one in rows.findings)
        self.reasons.update(entry.reason.value for entry in rows.ledger if entry.reason)
        self.others.update(
            attempts=len(rows.attempts),
            resets=len(account.closed),
            external=history.provider.external,
            upgrades=int(history.upgraded),
            snapshots=len(history.snapshots),
            conflicts_409=history.provider.organization.totals.conflicts,
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """As JSON shows them."""
        parts = {"verdicts": self.verdicts, "findings": self.findings, "reasons": self.reasons}
        return {name: dict(sorted(part.items())) for name, part in {**parts, "others": self.others}.items()}


def run_histories(count: int, seed: int, books: StoredBooks, tally: Tally, *, shrink: bool = True) -> None:
    """Run `count` histories; the first that fails is shrunk and raised."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        print_blob=False,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )
    @given(histories)
    def each(one: tuple) -> None:  # type: ignore[type-arg]
        tally.histories += 1
        setting, steps = one
        history = History(setting, books)
        for verb, pick in steps:
            history.step(verb, pick)
        history.end()
        check(history)
        tally.add(history, len(steps))

    each()
