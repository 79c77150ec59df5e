"""An endpoint of the relay as a JSON document."""

from app.domain.time_format import iso_utc
from app.store.read.relay import EndpointRow
from app.views.runs import Document


def endpoint_document(row: EndpointRow) -> Document:
    """Never its secret."""
    return {
        "id": row.id,
        "account": row.account,
        "url": row.url,
        "scheme": row.scheme,
        "state": row.state,
        "runs": list(row.runs),
        "taken": row.taken,
        "waiting": row.waiting,
        "given_up": row.given_up,
        "created_at": iso_utc(row.created_at_ms),
        "last_taken_at": iso_utc(row.last_taken_at_ms),
        "failing_since": iso_utc(row.failing_since_ms),
        "error": row.last_error if row.failing_since_ms is not None or row.state == "set_aside" else None,
        "next_try_at": iso_utc(row.due_at_ms) if row.state == "active" else None,
    }
