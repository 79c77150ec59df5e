"""A submitted run as a JSON document, with the lines of its source that could not be used."""

from collections.abc import Sequence

from app.domain.credits import to_json_number
from app.prompts.reader import BadLine
from app.services.load import Loaded
from app.store.read.runs import RunRow
from app.views.runs import Document, run_document


def submitted_document(
    run: RunRow, loaded: Loaded, *, woken: bool, worker: Document | None, next_steps: Sequence[str]
) -> Document:
    """`worker`: as of workers_document; `next_steps`: what to do now, in words."""
    return {
        "run": run_document(run),
        "tasks": loaded.tasks,
        "credits": {"estimate": to_json_number(loaded.estimate)},
        "reused": loaded.reused,
        "duplicates": loaded.duplicates,
        "resumed_after": loaded.resumed_after,
        "bad_lines_count": loaded.bad_lines,
        "bad_lines": [bad_line_document(bad) for bad in loaded.bad],
        "woken": woken,
        "worker": worker,
        "next": list(next_steps),
    }


def bad_line_document(bad: BadLine) -> Document:
    """One fault of the input."""
    return {"line": bad.line, "field": bad.field, "problem": bad.problem, "remedy": bad.remedy}
