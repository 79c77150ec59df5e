"""When a run is complete, what keeps it from it, and what the hashes are over."""

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.domain.evidence.certificate import (
    AttemptRecord,
    LedgerRecord,
    RunFacts,
    RunTotals,
    certificate_sha256,
)
from app.domain.evidence.completeness import certificate_text, certify, counted

MADE_MS = 1_790_900_000_000
FIVE = Decimal(5)
RUN = RunFacts(
    id="run",
    name="monday",
    account="default",
    source="p.csv",
    source_sha256="ab" * 32,
    state="running",
    bad_lines=0,
    begun_ms=MADE_MS - 1,
    findings={},
    entries=0,
)


def record(n: int = 1, **changes: Any) -> AttemptRecord:
    """A task that was completed and charged as promised."""
    done = AttemptRecord(
        n,
        f"t{n}",
        1,
        True,
        "completed",
        "posted",
        FIVE,
        FIVE,
        FIVE,
        FIVE,
        "completed",
        "matched",
        1,
        "cd" * 32,
    )
    return done._replace(**changes)


def entry(n: int = 1, kind: str = "hold", credits: Decimal = FIVE, **changes: Any) -> LedgerRecord:
    base = LedgerRecord(1_790_000_000_000, f"t{n}", 1, kind, credits, None if kind == "hold" else "d1", None)
    return base._replace(**changes)


def hold_and_post(n: int = 1) -> list[LedgerRecord]:
    return [entry(n), entry(n, "post")]


def made(
    standings: list[AttemptRecord],
    entries: list[LedgerRecord],
    run: RunFacts = RUN,
    *,
    made_ms: int = MADE_MS,
) -> dict[str, Any]:
    totals = RunTotals()
    totals.page(standings, entries)
    return certify(totals, replace(run, entries=len(entries)) if run.entries == 0 else run, made_ms)


def test_a_complete_run_says_so() -> None:
    failed = record(
        2, state="failed", reported="failed", money="voided", charged=Decimal(0), verdict="free_failure"
    )
    document = made([record(), failed], [*hold_and_post(), entry(2), entry(2, "void")])
    assert document["complete"] is True
    assert document["open_questions"] == []
    assert document["statement"] == (
        "Complete: each of the 2 prompts has an end (1 completed, 1 failed), every answer is stored and "
        "every credit is accounted for: 5 charged."
    )
    assert document["credits"] == {
        "estimated": 10,
        "to_charge": 10,
        "holds": 10,
        "open_holds": 0,
        "posted": 5,
        "voided": 5,
        "charged": 5,
        "adjustments": 0,
    }
    assert document["ends"]["completed"] == document["ends"]["failed"] == 1
    assert document["input"] == {"source": "p.csv", "prompts": 2, "bad_lines": 0}


def test_discrepancies_and_bad_lines_are_reported_and_are_no_open_question() -> None:
    run = replace(RUN, findings={"overcharged": 2, "repriced": 1}, bad_lines=1)
    document = made([record()], hold_and_post(), run)
    assert document["complete"] is True
    assert document["statement"].endswith(
        "1 line of the source could not be used. 3 discrepancies need explaining: tallyhook dispute."
    )
    assert document["discrepancies"] == {"overcharged": 2, "repriced": 1}


HELD = {"money": "held", "charged": None, "verdict": None}
OPEN = {"reported": None, "response_sha256": None}
NONE = {"money": "none", "held": None, "charged": None, **OPEN}
INCOMPLETE: dict[str, tuple[AttemptRecord, list[LedgerRecord], str]] = {
    "pending": (record(state="pending", **NONE), [], "1 task without an end yet"),
    "submitted": (record(state="submitted", **HELD, **OPEN), [entry()], "1 task without an end yet"),
    "charge unknown": (record(**HELD), [entry()], "1 task whose charge nobody has told, up to 5 credits"),
    "expired with its hold": (
        record(state="expired", **HELD, **OPEN),
        [entry()],
        "1 task whose charge nobody has told, up to 5 credits",
    ),
    "expired, never identified": (
        record(state="expired", **NONE),
        [],
        "1 task that the provider may have charged without our knowing, up to 5 credits",
    ),
    "past attempt with its hold": (
        record(current=False, state="expired", **HELD, **OPEN),
        [entry()],
        "1 task whose charge nobody has told, up to 5 credits",
    ),
    "answer gone": (
        record(response_sha256=None),
        hold_and_post(),
        "1 task with a report and no stored answer",
    ),
    "post missing": (record(), [entry()], "1 task whose ledger entries do not fit"),
    "hold missing": (record(), [entry(1, "post")], "1 task whose ledger entries do not fit"),
    "two holds": (record(), [entry(), *hold_and_post()], "1 task whose ledger entries do not fit"),
    "post and void": (
        record(),
        [*hold_and_post(), entry(1, "void")],
        "1 task whose ledger entries do not fit",
    ),
    "post of another amount": (
        record(),
        [entry(), entry(1, "post", Decimal(6))],
        "1 task whose ledger entries do not fit",
    ),
    "post where nothing was sent": (
        record(state="cancelled", **NONE),
        hold_and_post(),
        "1 task whose ledger entries do not fit",
    ),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_keeps_a_run_from_being_complete(name: str) -> None:
    wrong, entries, question = INCOMPLETE[name]
    document = made([wrong], entries)
    assert document["complete"] is False
    assert document["statement"].startswith(f"Not complete: {question}"), document["statement"]
    assert [q["count"] for q in document["open_questions"]] == [1], document["open_questions"]


def test_what_was_never_sent_needs_no_money() -> None:
    never = record(
        state="cancelled",
        money="none",
        held=None,
        to_charge=None,
        charged=None,
        reported=None,
        verdict=None,
        sends=0,
        response_sha256=None,
    )
    assert made([never, never._replace(state="rejected", sends=1)], [])["complete"] is True
    reused = never._replace(state="completed", charged=Decimal(0), response_sha256="ef" * 32)
    assert made([reused], [])["complete"] is True


def test_a_run_that_is_still_read_or_has_entries_of_others_is_not_complete() -> None:
    loading = made([record()], hold_and_post(), replace(RUN, state="loading"))
    assert loading["statement"] == "Not complete: the source is not read to its end."
    strange = made([record()], hold_and_post(), replace(RUN, entries=5))
    assert strange["statement"] == "Not complete: ledger entries of no task of the run: 3."
    assert made([], [])["statement"] == "Complete: there was no prompt to run."


def test_the_hashes_are_over_lines_that_anybody_can_write() -> None:
    document = made([record()], hold_and_post())
    result = (
        '{"attempt":1,"charged":5,"ordinal":1,"response_sha256":"'
        + "cd" * 32
        + '","state":"completed","task_id":"t1","verdict":"matched"}\n'
    )
    ledger = (
        '{"at":"2026-09-21T14:13:20.000Z","attempt":1,"credits":5,"delivery_id":null,"kind":"hold",'
        '"reason":null,"task_id":"t1"}\n'
        '{"at":"2026-09-21T14:13:20.000Z","attempt":1,"credits":5,"delivery_id":"d1","kind":"post",'
        '"reason":null,"task_id":"t1"}\n'
    )
    assert document["hashes"] == {
        "source_sha256": "ab" * 32,
        "results_sha256": hashlib.sha256(result.encode()).hexdigest(),
        "ledger_sha256": hashlib.sha256(ledger.encode()).hexdigest(),
    }
    # The recipe of docs/evidence.md for the certificate's own.
    stated = json.loads(json.dumps(document))
    own = stated.pop("certificate_sha256")
    del stated["made_at"]
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert own == hashlib.sha256(text.encode()).hexdigest()


def test_the_hashes_change_with_what_they_are_over_and_with_nothing_else() -> None:
    entries = hold_and_post() + hold_and_post(2)
    whole = made([record(), record(2)], entries)
    later = made([record(), record(2)], list(reversed(entries)), made_ms=MADE_MS + 1)
    assert later["hashes"] == whole["hashes"], "in which order entries were written says nothing"
    assert later["certificate_sha256"] == whole["certificate_sha256"] == certificate_sha256(later)
    paged = RunTotals()
    paged.page([record()], hold_and_post())
    paged.page([record(2)], hold_and_post(2))
    assert certify(paged, replace(RUN, entries=4), MADE_MS) == whole
    for changed in (
        {"charged": Decimal(6)},
        {"response_sha256": "00" * 32},
        {"state": "failed"},
        {"verdict": None},
    ):
        other = made([record(), record(2, **changed)], entries)
        assert other["hashes"]["results_sha256"] != whole["hashes"]["results_sha256"]
        assert other["certificate_sha256"] != whole["certificate_sha256"]
    for changed_entry in ({"reason": "x"}, {"at_ms": 1}, {"delivery_id": "d2"}, {"credits": Decimal("5.5")}):
        other = made([record(), record(2)], [*entries[:3], entries[3]._replace(**changed_entry)])
        assert other["hashes"]["ledger_sha256"] != whole["hashes"]["ledger_sha256"]


def test_adjustments_are_in_the_ledger_s_hash_and_sum() -> None:
    totals = RunTotals()
    totals.page([record()], hold_and_post())
    before = certify(totals, replace(RUN, entries=2), MADE_MS)
    totals.adjustments(
        [LedgerRecord(1_790_000_000_000, "t1", 1, "adjustment", Decimal("-1.5"), None, "agreed")]
    )
    after = certify(totals, replace(RUN, entries=2), MADE_MS)
    assert after["credits"]["adjustments"] == "-1.5"
    assert after["hashes"]["ledger_sha256"] != before["hashes"]["ledger_sha256"]
    assert after["complete"] is True


def test_a_person_reads_the_same() -> None:
    text = certificate_text(made([record(**HELD)], [entry()]))
    assert "Not complete: 1 task whose charge nobody has told, up to 5 credits." in text
    assert "open questions" in text.lower()
    assert "None" not in text
    assert counted(1_200, "prompt") == "1,200 prompts"
