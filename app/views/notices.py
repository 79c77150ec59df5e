"""A notice as a JSON document."""

import json

from app.domain.time_format import iso_utc
from app.store.write.notices import NoticeRow
from app.views.runs import Document


def notice_document(row: NoticeRow) -> Document:
    """What is sent, and what became of it."""
    return {
        "id": row.id,
        "kind": row.kind,
        "at": iso_utc(row.at_ms),
        "account": row.account,
        "run_id": row.run_id,
        "state": row.state,
        "tries": row.tries,
        "sent_at": iso_utc(row.sent_at_ms),
        "error": row.error,
        "next_try_at": iso_utc(row.due_at_ms) if row.state == "new" else None,
        "data": json.loads(row.body)["data"],
    }
