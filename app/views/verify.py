"""What deriving the books again found, as a JSON document."""

from dataclasses import asdict

from app.domain.credits import to_json_number
from app.domain.text import agreeing, counted
from app.domain.time_format import iso_utc
from app.services.verify.books import VerifyTotals
from app.views.runs import Document


def verify_document(totals: VerifyTotals, runs: int) -> Document:
    """Every difference, the sums, and the outcome in a sentence; `runs`: how many were derived again."""
    credits = {name: to_json_number(amount) for name, amount in sorted(totals.sums.items())}
    counts = dict(sorted(totals.counts.items())) | {"runs": runs}
    return {
        "pruned": _pruned_document(totals),
        "equal": not totals.differences_count,
        "message": _sentence(totals, runs),
        "differences_count": totals.differences_count,
        "differences": [asdict(difference) for difference in totals.differences],
        "counts": counts,
        "credits": credits,
    }


def _pruned_document(totals: VerifyTotals) -> Document | None:
    """Tasks that can be verified no further than their rows among each other; None: there are none."""
    if not totals.counts["pruned"]:
        return None
    times = [found.at_ms for found in totals.pruned.values()]
    return {
        "tasks": totals.counts["pruned"],
        "attempts": totals.counts["pruned_attempts"],
        "sends": totals.counts["pruned_sends"],
        "findings": totals.counts["pruned_findings"],
        "credits_charged": to_json_number(totals.pruned_credits),
        "first_at": iso_utc(min(times)),
        "last_at": iso_utc(max(times)),
    }


def _until(totals: VerifyTotals) -> str:
    pruned = _pruned_document(totals)
    if pruned is None:
        return ""
    first, last = str(pruned["first_at"])[:10], str(pruned["last_at"])[:10]
    when = f"on {first}" if first == last else f"between {first} and {last}"
    return f" {pruned['tasks']:,} of them {agreeing(pruned['tasks'])} verified until pruned {when}."


def _sentence(totals: VerifyTotals, runs: int) -> str:
    counts = totals.counts
    were = agreeing(counts["tasks"], "was", "were")
    what = f"{counted(counts['tasks'], 'task')} of {counted(runs, 'run')}"
    if totals.differences_count:
        places = counted(totals.differences_count, "place")
        return f"The books differ from the evidence in {places}; {what} {were} derived again."
    unchecked = counts["signatures_unchecked"]
    doubt = (f" {counted(unchecked, 'signature')} cannot be checked: the secret is not configured.") * bool(
        unchecked
    )
    done = "The books are what the evidence gives"
    return f"{done}: {what} {were} derived again and nothing differs.{_until(totals)}{doubt}"
