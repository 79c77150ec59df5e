"""What deriving the books again found, as a JSON document."""

from dataclasses import asdict

from app.domain.credits import to_json_number
from app.services.verify.books import VerifyTotals
from app.views.runs import Document


def verify_document(totals: VerifyTotals, runs: int) -> Document:
    """Every difference, the sums, and the outcome in a sentence; `runs`: how many were derived again."""
    credits = {name: to_json_number(amount) for name, amount in sorted(totals.sums.items())}
    counts = dict(sorted(totals.counts.items())) | {"runs": runs}
    return {
        "equal": not totals.differences_count,
        "message": _sentence(totals, runs),
        "differences_count": totals.differences_count,
        "differences": [asdict(difference) for difference in totals.differences],
        "counts": counts,
        "credits": credits,
    }


def _sentence(totals: VerifyTotals, runs: int) -> str:
    counts = totals.counts
    what = f"{counts['tasks']:,} tasks of {runs} run{'s' * (runs != 1)}"
    if totals.differences_count:
        places = f"{totals.differences_count:,} place{'s' * (totals.differences_count != 1)}"
        return f"The books differ from the evidence in {places}; {what} were derived again."
    unchecked = counts["signatures_unchecked"]
    doubt = f" {unchecked:,} signatures cannot be checked: their secret is not configured." * bool(unchecked)
    return f"The books are what the evidence gives: {what} were derived again and nothing differs.{doubt}"
