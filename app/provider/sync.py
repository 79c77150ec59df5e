"""Sync calls over HTTP: one request, one answer, never repeated here (C-K, C-D.2)."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec

from app.domain.sync_call import SyncAnswer, SyncEnd, end_of
from app.domain.text import storable
from app.provider import wire
from app.provider.client import ANSWER_BYTES_MAX, RateLimiter
from app.provider.egress import NOT_SENT, STRAIGHT, Egress

CONNECT_TIMEOUT_S = 10.0
FAMILIES = ("X-Concurrency", "X-Concurrent")
"""The newer spelling counts where both are sent (C-B3)."""
DIGITS_MAX = 12


class SyncClient:
    """Calls to `/v1/monitor/…` of one account. Paces itself; never raises for what the provider does."""

    def __init__(
        self, *, base_url: str, api_key: str, pacer: RateLimiter, timeout_s: float, egress: Egress = STRAIGHT
    ) -> None:
        self._base_url = base_url
        self._egress = egress
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._rate_limiter = pacer
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S), sock_read=None
        )

    async def close(self) -> None:
        await self._rate_limiter.close()

    async def ask(self, task_type: str, payload_json: str) -> SyncAnswer:
        """POST /v1/monitor/{engine}; holds its connection until the answer is there."""
        if wait_s := await self._rate_limiter.acquire():
            return SyncAnswer(SyncEnd.BUSY, message="no turn under the rate limit", wait_s=wait_s)
        # It is counted when it comes, and answered minutes later: it is not on its way for so long.
        self._rate_limiter.answered(0.0)
        url = f"{self._base_url}/v1/monitor/{wire.path_of(task_type)}"
        try:
            async with (
                # A connection of its own: one that idled could break in a way that looks like a lost answer.
                aiohttp.ClientSession(timeout=self._timeout, connector=self._egress.connector()) as session,
                session.post(
                    url, data=payload_json.encode(), allow_redirects=False, **self._egress.how(self._headers)
                ) as response,
            ):
                body = await response.content.read(ANSWER_BYTES_MAX + 1)
                while not response.content.at_eof() and len(body) <= ANSWER_BYTES_MAX:
                    body += await response.content.read(ANSWER_BYTES_MAX + 1 - len(body))
                return read_sync(response.status, response.headers, body)
        except (*NOT_SENT, aiohttp.ConnectionTimeoutError) as error:
            return SyncAnswer(SyncEnd.NOT_SENT, message=f"cannot connect: {error}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return SyncAnswer(SyncEnd.LOST, message=f"no answer: {type(error).__name__}")


def read_sync(status: int, headers: Mapping[str, str], body: bytes) -> SyncAnswer:
    """One answer of a sync call; `headers` are case-insensitive."""
    limit, used, left = (_slots(headers, part) for part in ("Limit", "Current", "Remaining"))
    charged = _number(headers.get("X-Credits-Charged"))
    remaining = _signed(headers.get("X-Credits-Remaining"))
    common: dict[str, Any] = {
        "http_status": status,
        "slots": limit,
        "slots_used": used,
        "charged": None if charged is None else Decimal(charged),
        "remaining": None if remaining is None else Decimal(remaining),
        "request_id": storable(headers.get("X-Request-ID", ""), wire.ID_CHARS_MAX) or None,
    }
    if 200 <= status < 300:
        whole = wire.without_halves(body)
        result = wire.unwrapped(whole)
        # Wrapped, or with the provider's own header: any other JSON object may be anybody's.
        if wire.is_object(result) and (result != whole or charged is not None):
            return SyncAnswer(SyncEnd.ANSWERED, result=result, **common)
        page = wire.page_of(status, headers, body)
        return SyncAnswer(SyncEnd.LOST, message=f"2xx without a readable answer: {page}", **common)
    error = wire.read_error(status, headers, body)
    end = end_of(status, error.code, enveloped=error.is_own, slots_left=left)
    return SyncAnswer(end, code=error.code, message=error.message, wait_s=error.wait_s, **common)


def encode_sync_report(key: str, end: SyncAnswer) -> bytes:
    """The end of a sync call as a report in the form of C-I.1, which is how settlement reads all of them. An
    answer of the provider that it failed is free where it says nothing of credits (C-E.4)."""
    completed = end.end is SyncEnd.ANSWERED
    charged = end.charged
    if charged is None and not completed:
        charged = Decimal(0)
    error = {"error": {"code": end.code, "message": end.message}}
    report = {
        "task": {
            "id": end.request_id or key,
            "status": "COMPLETED" if completed else "FAILED",
            "idempotencyKey": key,
        },
        "credits": {"creditsCharged": None if charged is None else int(charged)},
        "response": msgspec.Raw(end.result) if completed else error,
    }
    return msgspec.json.encode(report)


def _slots(headers: Mapping[str, str], part: str) -> int | None:
    found = (_number(headers.get(f"{family}-{part}")) for family in FAMILIES)
    return next((number for number in found if number is not None), None)


def _number(text: str | None) -> int | None:
    digits = text is not None and len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
    return int(text) if digits and text is not None else None


def _signed(text: str | None) -> int | None:
    """A balance may be below zero, under a contract (C-L9)."""
    if text is None or not text.startswith("-"):
        return _number(text)
    below = _number(text[1:])
    return None if below is None else -below
