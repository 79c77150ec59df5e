"""What a certificate says: whether a run is complete, in plain words, and what is open if it is not.

Pure. May not do I/O, read a clock or log.
"""

from collections.abc import Sequence

from app.domain.credits import to_json_number
from app.domain.evidence.certificate import Document, RunFacts, RunTotals, certificate_sha256
from app.domain.task import OPEN_STATES, RunState, TaskState
from app.domain.text import counted
from app.domain.time_format import iso_utc

FORMAT = "tallyhook-certificate-1"
CREDITS = {
    "estimated": "estimated",
    "to_charge": "to_charge",
    "holds": "hold",
    "open_holds": "open",
    "posted": "post",
    "voided": "void",
    "charged": "charged",
    "adjustments": "adjustment",
}
"""Figure of the certificate -> the sum in its totals."""
UNNAMED = (
    "deliveries set aside that may be about it, whose task cannot be made out: {count}; tallyhook inbox list"
)


def certify(totals: RunTotals, run: RunFacts, made_ms: int) -> Document:
    """The certificate, its own hash included. `totals` has seen every page of the run."""
    results_sha256, ledger_sha256 = totals.hashes()
    questions = open_questions(totals, run)
    document: Document = {
        "format": FORMAT,
        "made_at": iso_utc(made_ms),
        "complete": not questions,
        "statement": _statement(totals, run, questions),
        "run": {"id": run.id, "name": run.name, "account": run.account, "begun_at": iso_utc(run.begun_ms)},
        "input": {"source": run.source, "prompts": totals.ends.total(), "bad_lines": run.bad_lines},
        "ends": {state.value: totals.ends[state] for state in TaskState},
        "retried_attempts": totals.retried,
        "verdicts": dict(sorted(totals.verdicts.items())),
        "credits": {figure: to_json_number(totals.sum(name)) for figure, name in CREDITS.items()},
        "hashes": {
            "source_sha256": run.source_sha256,
            "results_sha256": results_sha256,
            "ledger_sha256": ledger_sha256,
        },
        "open_questions": questions,
        "discrepancies": dict(sorted(run.findings.items())),
    }
    if run.pruned_at_ms is not None:
        gone = {"answers": run.pruned, "sends": run.pruned_sends, "findings": run.pruned_findings}
        document["pruned"] = gone | {"verified_until": iso_utc(run.pruned_at_ms)}
    return document | {"certificate_sha256": certificate_sha256(document)}


def open_questions(totals: RunTotals, run: RunFacts) -> list[Document]:
    """What stands between a run and its completeness; empty when nothing does."""
    still = sum(totals.ends[state] for state in OPEN_STATES)
    sums = totals.sums
    asked = [
        (int(run.state == RunState.LOADING), "the source is not read to its end", ""),
        (still, "{tasks} without an end yet", ""),
        (totals.unknown, "{tasks} whose charge nobody has told, up to {credits} credits", "unknown"),
        (
            totals.unidentified,
            "{tasks} that the provider may have charged without our knowing, up to {credits} credits",
            "unidentified",
        ),
        (totals.unstored, "{tasks} with a report and no stored answer", ""),
        (totals.contradicted, "{tasks} refused, and reported all the same; tallyhook verify names them", ""),
        (totals.unbalanced, "{tasks} whose ledger entries do not fit; tallyhook verify names them", ""),
        (run.set_aside, "deliveries about it that were set aside: {count}; tallyhook inbox list", ""),
        (abs(run.entries - totals.entries), "ledger entries of no task of the run: {count}", ""),
    ]
    if run.unnamed and any(count for count, _, _ in asked):
        # Where nothing else is open, a delivery that names nothing leaves nothing open either.
        asked.append((run.unnamed, UNNAMED, ""))
    return [
        {
            "question": text.format(
                tasks=counted(count, "task"), count=count, credits=to_json_number(sums.get(name))
            ),
            "count": count,
            "credits": to_json_number(sums.get(name)),
        }
        for count, text, name in asked
        if count
    ]


def _statement(totals: RunTotals, run: RunFacts, questions: Sequence[Document]) -> str:
    if questions:
        return f"Not complete: {'; '.join(question['question'] for question in questions)}."
    prompts, found = totals.ends.total(), sum(run.findings.values())
    ends = ", ".join(f"{count:,} {state}" for state, count in sorted(totals.ends.items()))
    sentences = ["Complete: there was no prompt to run."]
    if prompts:
        sentences = [
            f"Complete: each of the {counted(prompts, 'prompt')} has an end ({ends}), every answer is stored "
            f"and every credit is accounted for: {_figure(to_json_number(totals.sum('charged')))} charged."
        ]
    if run.bad_lines:
        sentences.append(f"{counted(run.bad_lines, 'line')} of the source could not be used.")
    if found:
        need = "needs" if found == 1 else "need"
        sentences.append(
            f"{counted(found, 'discrepancy', 'discrepancies')} {need} explaining: tallyhook dispute."
        )
    return " ".join(sentences)


def certificate_text(document: Document) -> str:
    """The certificate as a page of text."""
    run, put_in, hashes = document["run"], document["input"], document["hashes"]
    questions = {str(n): q["question"] for n, q in enumerate(document["open_questions"], 1)}
    pruned = []
    if (gone := document.get("pruned")) is not None:
        until = f"verified until pruned on {gone['verified_until'][:10]}"
        kinds = {"answers": "body of an answer", "sends": "record of sends", "findings": "discrepancy"}
        many = {"answers": "bodies of answers", "sends": "records of sends", "findings": "discrepancies"}
        what = ", ".join(counted(gone[k], one, many[k]) for k, one in kinds.items() if gone[k])
        pruned = [f"Pruned: {what}; {until}. The counts and hashes above stay as they were."]
    blocks = [
        f"Certificate of the run {run['name']}\n{'=' * (23 + len(run['name']))}\n\n{document['statement']}",
        _block("Run", {"id": run["id"], "account": run["account"], "begun": run["begun_at"]}),
        _block("Input", {**put_in, "sha256": hashes["source_sha256"] or "unknown"}),
        _block("Ends", {name: count for name, count in document["ends"].items() if count}),
        _block("Verdicts", document["verdicts"]),
        _block("Credits", document["credits"]),
        _block("Hashes", {name: value for name, value in hashes.items() if name != "source_sha256"}),
        _block("Open questions", questions),
        _block("Discrepancies", document["discrepancies"]),
        f"Certificate SHA-256: {document['certificate_sha256']}",
        *pruned,
        f"Made at {document['made_at']}, which is not part of the hash.",
    ]
    return "\n\n".join(blocks) + "\n"


def _block(title: str, lines: Document) -> str:
    shown = [f"  {name.replace('_', ' '):<16} {_figure(value)}" for name, value in lines.items()]
    return "\n".join([title, *(shown or ["  none"])])


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
