"""Tokens and actions as JSON documents. The token itself is in none: nobody has it."""

from app.domain.access import ActionRow, TokenRow
from app.domain.time_format import iso_utc
from app.views.runs import Document


def token_document(row: TokenRow, now_ms: int) -> Document:
    """A token as `token list` has it."""
    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "scope": row.scope,
        "account": row.account,
        "state": row.state(now_ms),
        "created_at": iso_utc(row.created_at_ms),
        "expires_at": iso_utc(row.expires_at_ms),
        "revoked_at": iso_utc(row.revoked_at_ms),
        "last_used_at": iso_utc(row.last_used_at_ms),
        "webhook_url": row.webhook_url,
    }


def action_document(row: ActionRow) -> Document:
    """One write. Without a status it goes on, or its process died in it."""
    return {
        "id": row.id,
        "at": iso_utc(row.at_ms),
        "actor": row.actor,
        "token_id": row.token_id,
        "action": row.action,
        "subject": row.subject,
        "request_id": row.request_id,
        "status": row.status,
    }
