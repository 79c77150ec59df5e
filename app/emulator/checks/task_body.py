"""The envelope of an async task: type, payload, priority, key and webhook (C-G.1)."""

import re
from collections.abc import Mapping
from typing import Any

from app.emulator.checks.payload import check_payload
from app.emulator.checks.validation import (
    Leniency,
    Problem,
    absolute_http_url,
    kind_of,
    options_text,
    unknown_keys,
    wrong_type,
)
from app.emulator.data.editions import Edition
from app.emulator.data.engine_table import TASK_TYPES

IDEMPOTENCY_CHARACTERS_MAX = 255
"""No limit is published (C-L row L26)."""
_TASK_TYPE_SET = frozenset(TASK_TYPES)
_TASK_FIELDS = frozenset({"taskType", "payload", "priority", "idempotencyKey", "webhook"})
_PRINTABLE = re.compile(r"^[^\x00-\x1f\x7f]+$")


def check_task(body: object, edition: Edition, leniency: Leniency) -> list[Problem]:
    """Everything wrong with one async task object; the payload's fields carry the prefix `payload.`
    (C-J.4)."""
    if not isinstance(body, dict):
        return [{"field": "", "message": f"Invalid input: expected object, received {kind_of(body)}"}]
    problems: list[Problem] = []
    if not leniency.unknown_fields:
        unknown_keys(body, _TASK_FIELDS, "", problems)
    task_type = body.get("taskType")
    known_type = isinstance(task_type, str) and task_type in _TASK_TYPE_SET
    if not known_type:
        problems.append({"field": "taskType", "message": options_text(TASK_TYPES)})
    payload = body.get("payload")
    if not isinstance(payload, dict):
        problems.append({"field": "payload", "message": wrong_type("object", body, "payload")})
    elif known_type:
        problems.extend(check_payload(str(task_type), payload, edition, leniency, "payload."))
    if "priority" in body:
        _check_priority(body, problems)
    if "idempotencyKey" in body:
        _check_idempotency_key(body, problems)
    if "webhook" in body:
        _check_webhook(body, leniency, problems)
    return problems


def _check_priority(body: Mapping[str, Any], problems: list[Problem]) -> None:
    value = body["priority"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        message = wrong_type("number", body, "priority")
    elif isinstance(value, float) and not value.is_integer():
        message = "Invalid input: expected int, received number"
    elif value < 1:
        message = "Too small: expected number to be >=1"
    elif value > 10:
        message = "Too big: expected number to be <=10"
    else:
        return
    problems.append({"field": "priority", "message": message})


def _check_idempotency_key(body: Mapping[str, Any], problems: list[Problem]) -> None:
    value = body["idempotencyKey"]
    if not isinstance(value, str):
        message = wrong_type("string", body, "idempotencyKey")
    elif not value:
        message = "Too small: expected string to have >=1 characters"
    elif len(value) > IDEMPOTENCY_CHARACTERS_MAX:
        message = f"Too big: expected string to have <={IDEMPOTENCY_CHARACTERS_MAX} characters"
    elif not _PRINTABLE.match(value):
        message = "Invalid string: expected printable characters"
    else:
        return
    problems.append({"field": "idempotencyKey", "message": message})


def _check_webhook(body: Mapping[str, Any], leniency: Leniency, problems: list[Problem]) -> None:
    webhook = body["webhook"]
    if not isinstance(webhook, dict):
        problems.append({"field": "webhook", "message": wrong_type("object", body, "webhook")})
        return
    if not leniency.unknown_fields:
        unknown_keys(webhook, frozenset({"url"}), "webhook.", problems)
    url = webhook.get("url")
    if not isinstance(url, str):
        problems.append({"field": "webhook.url", "message": wrong_type("string", webhook, "url")})
    elif not absolute_http_url(url):
        problems.append({"field": "webhook.url", "message": "Invalid URL"})
