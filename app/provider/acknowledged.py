"""What a poll says about its task's webhook (C-G.4, P18). May not raise for what the provider sends."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from app.domain.evidence import Acknowledged
from app.provider.wire import ID_CHARS_MAX, UNREADABLE, decode, storable

URL_CHARS_MAX = 200
TIME_CHARS_MAX = 40


class _Answer(msgspec.Struct):
    task: Any = None
    webhook: Any = None


_answer = msgspec.json.Decoder(_Answer)


def read_acknowledged(body: bytes) -> Acknowledged | None:
    """That the provider had a 2xx for its webhook. None when it had none, when there is no webhook, and in
    editions that do not tell (C-B26)."""
    try:
        answer = decode(_answer, body)
    except UNREADABLE:
        return None
    task, webhook = answer.task, answer.webhook
    if (
        not isinstance(task, Mapping)
        or not isinstance(webhook, Mapping)
        or webhook.get("delivered") is not True
    ):
        return None
    at, url = webhook.get("deliveredAt"), webhook.get("url")
    return Acknowledged(
        provider_task_id=storable(str(task.get("id")), ID_CHARS_MAX),
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
