"""What a poll says of its webhook, whatever it sends."""

import json
from typing import Any

import pytest

from app.domain.evidence.records import AcknowledgedWebhook
from app.provider.webhook_state import URL_CHARS_MAX, read_acknowledged

AT = "2026-04-09T15:00:44.000Z"


def body(webhook: Any, task: Any = None) -> bytes:
    return json.dumps({"task": task or {"id": "pt"}, "webhook": webhook, "response": {}}).encode()


def poll_body(**changes: Any) -> bytes:
    return body({"url": "https://us.example/hook", "delivered": True, "deliveredAt": AT} | changes)


def test_an_acknowledged_one_is_read() -> None:
    assert read_acknowledged(poll_body()) == AcknowledgedWebhook("pt", AT, "https://us.example/hook")
    assert read_acknowledged(poll_body(deliveredAt=None, url=None)) == AcknowledgedWebhook("pt", None, None)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"task":{"id":"pt"}}',
        body(None),
        body([]),
        body("x"),
        poll_body(delivered=False),
        poll_body(delivered=None),
        poll_body(delivered="true"),
        poll_body(delivered=1),
        body({"delivered": True}, task="pt"),
        b'{"webhook":' + b"[" * 100_000,
    ],
)
def test_anything_else_says_nothing(sent: bytes) -> None:
    assert read_acknowledged(sent) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:word@us.example:8443/hook?token=abc#x", "https://us.example:8443/hook"),
        ("http://[::1]:80/hook", "http://::1:80/hook"),
        ("https://us.example:notaport/", None),
        ("https://us.example/" + "x" * 1_000, ("https://us.example/" + "x" * 1_000)[:URL_CHARS_MAX]),
    ],
)
def test_where_it_went_is_shown_without_what_may_be_secret(url: str, shown: str | None) -> None:
    found = read_acknowledged(poll_body(url=url))
    assert found is not None and found.url == shown


def test_texts_are_such_as_every_database_takes() -> None:
    found = read_acknowledged(
        body({"url": "h://a/\x00", "delivered": True, "deliveredAt": "\x00"}, {"id": "\x00"})
    )
    assert found == AcknowledgedWebhook("\\0", "\\0", "h://a/\\0")
