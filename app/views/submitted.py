"""A submitted run as a JSON document, with the lines of its source that could not be used."""

from collections.abc import Sequence

from app.domain.credits import to_json_number
from app.domain.remarks import Remark
from app.services.load import Loaded, NewRun
from app.store.read.runs import RunRow
from app.views.runs import Document, run_document


def submitted_document(
    run: RunRow,
    loaded: Loaded,
    *,
    own_columns: Sequence[str],
    woken: bool,
    worker: Document | None,
    next_steps: Sequence[str],
    read_as: str | None = None,
    webhook: Document | None = None,
) -> Document:
    """`own_columns`: kept, and not sent; `worker`: as of workers_document; `next_steps`: what to do now, in
    words; `read_as`: what was taken for granted about the bytes of the source, in a sentence."""
    return {
        "run": run_document(run),
        "tasks": loaded.tasks,
        "credits": {"estimate": to_json_number(loaded.estimate)},
        "reused": loaded.reused,
        "repeats": {"records": loaded.repeated, "tasks": loaded.samples},
        "duplicates": loaded.duplicates,
        "resumed_after": loaded.resumed_after,
        "own_columns": list(own_columns),
        "bad_lines_count": loaded.bad_lines,
        "bad_lines": [bad_line_document(remark) for remark in loaded.bad.kept],
        "bad_lines_unnamed": loaded.bad.others,
        "read_as": read_as,
        "webhook": webhook,
        "woken": woken,
        "worker": worker,
        "next": list(next_steps),
    }


def webhook_document(new: NewRun, secret: str | None) -> Document | None:
    """Where results are pushed to; None: nowhere. `secret`: that of a new URL, told this once."""
    if new.push_to is None:
        return None
    return {"url": new.push_to.url, "secret": secret, "secret_given": new.push_to.is_secret_given}


def bad_line_document(remark: Remark) -> Document:
    """One fault of the input, and the first of the records that have it."""
    return {
        "line": remark.line,
        "field": remark.field,
        "problem": remark.problem,
        "remedy": remark.remedy,
        "count": remark.count,
        "lines": list(remark.lines),
        "message": f"{remark.where}: {remark.problem}" + (f"; {remark.remedy}" if remark.remedy else ""),
    }
