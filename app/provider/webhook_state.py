"""What a poll says about its task's webhook (C-G.4, P18). May not raise for what the provider sends."""

from urllib.parse import urlsplit

from app.domain.evidence.records import AcknowledgedWebhook
from app.domain.text import storable
from app.provider.wire import ID_CHARS_MAX, fields_of, value_of

URL_CHARS_MAX = 200
TIME_CHARS_MAX = 40


def read_acknowledged(body: bytes) -> AcknowledgedWebhook | None:
    """That the provider had a 2xx for its webhook. None when it had none, when there is no webhook, and in
    editions that do not report it (C-B26)."""
    answer = fields_of(body)
    task, webhook = (fields_of(answer.get(name, b"")) for name in ("task", "webhook"))
    if not task or value_of(webhook.get("delivered")) is not True:
        return None
    at, url = value_of(webhook.get("deliveredAt")), value_of(webhook.get("url"))
    return AcknowledgedWebhook(
        provider_task_id=storable(str(value_of(task.get("id"))), ID_CHARS_MAX),
        at=storable(at, TIME_CHARS_MAX) if isinstance(at, str) else None,
        url=_shown(url) if isinstance(url, str) else None,
    )


def _shown(url: str) -> str | None:
    """Where it went, without user, password and query, which may be secrets of somebody's."""
    try:
        parts = urlsplit(url)
        place = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    return storable(f"{parts.scheme}://{place}{port}{parts.path}", URL_CHARS_MAX)
