"""Deliveries of the inbox as JSON documents; what a delivery says only where it is asked for."""

import base64

from app.domain.time_format import iso_utc
from app.store.read.set_aside import InboxRow
from app.views.runs import Document


def inbox_state(row: InboxRow) -> str:
    """How a delivery stands, in a word."""
    return {"quarantined": "set_aside"}.get(row.state, "held_up" if row.error else row.state)


def inbox_document(row: InboxRow) -> Document:
    """A delivery without its body."""
    state = inbox_state(row)
    return {
        "id": row.id,
        "state": state,
        "account": row.account,
        "source": row.source,
        "received_at": iso_utc(row.received_at_ms),
        "webhook_id": row.webhook_id,
        "error": row.error,
        "next_try_at": iso_utc(row.due_at_ms) if state == "held_up" else None,
        "tries": row.tries,
        "encoding": row.encoding,
        "stored_bytes": row.stored_bytes,
    }


def body_document(body: bytes | None) -> Document:
    """The body as JSON can carry it; bytes that are no text as base64 too."""
    if body is None:
        return {"body": None, "bytes": None}
    try:
        return {"body": body.decode(), "bytes": len(body)}
    except UnicodeDecodeError:
        text = body.decode("utf-8", "backslashreplace")
        return {"body": text, "bytes": len(body), "body_base64": base64.b64encode(body).decode()}
