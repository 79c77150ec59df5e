"""The receiver: verifies a delivery, has its raw bytes committed, acknowledges. It does not know what a
delivery says; everything that is ours to decide happens later, in settlement.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import structlog
from aiohttp import web

from app.config import DEFAULT_ACCOUNT
from app.domain.delivery import RawDelivery, signed_delivery_id
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.text import printable_ascii
from app.ports import Clock
from app.provider.signature import RefusalReason, Refused, Verified, answer_challenge, ill_formed, verify
from app.provider.wire import decode
from app.web.limits import WebLimits
from app.web.metrics import Metrics
from app.web.receiver.body import (
    BodyRefused,
    ReadBudget,
    answer_unread,
    encoding_refused,
    expect_continue,
    has_long_rest,
    read_body,
)
from app.web.receiver.clock_offset import ClockOffset
from app.web.receiver.inbox import CommitFailed, Inbox, InboxFull

log = structlog.get_logger(__name__)

PATH = "/webhooks/cloro"
ACCOUNT_PATH = PATH + "/{account}"
"""Of a further account: verified with its own secrets only."""
RETRY_AFTER_S = 5
"""Told with each 503. Group commits last milliseconds; a database that restarts is back in seconds."""
OFF_LOOP_FROM_BYTES = 256 * 1024
"""Checking costs about 1 ms/MB; from here on it is done in a thread, lest other requests wait (W10)."""
LINGERING_TIME_S = 1.0
"""How long a connection stays for the answer to a refused body to be seen. The rest of a short body is read
and thrown away meanwhile."""
HEADER_CHARS_MAX = 200
"""A webhook id has 38 characters, a signature 67."""
REFUSALS_TOLD_EVERY_S = 10.0
CHALLENGE = re.compile(r"[0-9a-f]{16,64}")

# Raw values are skipped over, not built: an 18 KB answer costs a dict of three entries and 8 µs.
_json_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class _Signed:
    """The headers of a delivery that matter, as they came."""

    webhook_id: str | None
    timestamp: str | None
    signature: str | None

    @classmethod
    def of(cls, request: web.BaseRequest) -> "_Signed":
        headers = request.headers
        return cls(
            headers.get("X-Cloro-Webhook-Id"),
            headers.get("X-Cloro-Timestamp"),
            headers.get("X-Cloro-Signature"),
        )

    @property
    def missing(self) -> bool:
        return self.timestamp is None and self.signature is None


class Receiver:
    """Handlers of the webhook's path."""

    def __init__(
        self,
        inbox: Inbox,
        secrets: Mapping[str, Sequence[str]],
        offset: ClockOffset,
        metrics: Metrics,
        *,
        limits: WebLimits,
        clock: Clock,
        allow_unsigned: bool,
    ) -> None:
        self._inbox = inbox
        self._secrets = {account: tuple(each) for account, each in secrets.items()}
        self._offset = offset
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._allow_unsigned = allow_unsigned
        self._budget = ReadBudget(limits.waiting_bytes_max)
        self._checking = asyncio.Semaphore(1)
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._seldom = _Seldom()
        # Bound once: the module's logger is set up anew by each call, even of what is not told.
        self._log = log.bind()

    @property
    def unverified_bytes(self) -> int:
        """Of large bodies that are being read or checked, beyond the free part of each."""
        return self._budget.used_bytes

    async def post(self, request: web.Request) -> web.Response:
        """One delivery. 200 only after its bytes are committed; 401 and 4xx leave nothing behind."""
        self._in_flight += 1
        self._is_idle.clear()
        try:
            response = await self._respond(request)
            self._metrics.count_answer(response.status)
            if response.status != 200 and has_long_rest(request):
                await answer_unread(request, response, lingering_s=LINGERING_TIME_S)
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()

    async def finish(self, within_s: float) -> None:
        """Wait until every delivery that has begun to come is answered, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_idle.wait()

    async def expect(self, request: web.Request) -> web.Response | None:
        """The same for a sender that asks before it sends the body: what is refused anyway is not sent."""
        if self._inbox.refusal is not None or self._refusal_by_head(request) is not None:
            return await self.post(request)
        return await expect_continue(request)

    async def challenge(self, request: web.Request) -> web.Response:
        """Proof that whoever answers under this URL holds our secret; asked by `tallyhook doctor`."""
        challenge = request.query.get("challenge", "")
        if not CHALLENGE.fullmatch(challenge):
            return _json_response(400, error="challenge must be 16 to 64 lower-case hex digits")
        secrets = self._secrets.get(_account_of(request))
        if not secrets:
            return _json_response(404, error="no secret is configured")
        return _json_response(200, answer=answer_challenge(secrets[0], challenge))

    async def _respond(self, request: web.Request) -> web.Response:
        signed = _Signed.of(request)
        refusal = self._inbox.refusal
        refused = self._refusal_by_head(request) if refusal is None else (503, refusal)
        if refused is not None:
            return self._refuse(*refused, signed)
        limits = self._limits
        try:
            body = await read_body(
                request, self._budget, bytes_max=limits.body_bytes_max, timeout_s=limits.body_read_timeout_s
            )
        except BodyRefused as refused_body:
            return self._refuse(refused_body.status, refused_body.reason)
        account, now_ms = _account_of(request), self._clock()
        secrets = self._secrets[account]
        if len(body) < OFF_LOOP_FROM_BYTES:
            checked = self._check(secrets, signed, body, now_ms)
        else:
            with self._budget.held(len(body)):
                checked = await self._check_large(secrets, signed, body, now_ms)
        self._note_clock(signed, checked)
        if isinstance(checked, Refused):
            return self._refuse(401, checked.reason, signed)
        if checked is False:
            return self._refuse(400, "malformed", signed)
        return await self._store_and_acknowledge(account, signed, body, now_ms, checked)

    def _refusal_by_head(self, request: web.Request) -> tuple[int, str] | None:
        """Status and reason if the head alone tells that the delivery is not taken; its body is not read
        then. Everything here costs the same, whatever a stranger sends."""
        secrets = self._secrets.get(_account_of(request))
        if secrets is None:
            return 404, "unknown_account"
        if (request.content_length or 0) > self._limits.body_bytes_max:
            return 413, "oversize"
        if encoding_refused(request):
            return 415, "content_encoding"
        signed = _Signed.of(request)
        if not self._must_verify(secrets, signed):
            return None
        refused = ill_formed(signed.timestamp, signed.signature)
        return None if refused is None else (401, refused.reason)

    def _must_verify(self, secrets: Sequence[str], signed: _Signed) -> bool:
        return not self._allow_unsigned or (bool(secrets) and not signed.missing)

    async def _check_large(
        self, secrets: Sequence[str], signed: _Signed, body: bytes, now_ms: int
    ) -> Verified | Refused | bool:
        """One at a time: whoever forges large bodies gets one processor at most, and waits for himself."""
        async with self._checking:
            return await asyncio.to_thread(self._check, secrets, signed, body, now_ms)

    async def _store_and_acknowledge(
        self, account: str, signed: _Signed, body: bytes, now_ms: int, checked: Verified | bool
    ) -> web.Response:
        delivery = RawDelivery(
            id=_id_of(account, signed, checked, now_ms),
            source=Source.DELIVERY,
            received_at_ms=now_ms,
            body=body,
            webhook_id=_storable_header(signed.webhook_id),
            signed_at=_storable_header(signed.timestamp),
            signature=_storable_header(signed.signature),
            account=account,
        )
        try:
            await self._inbox.accept(delivery)
        except InboxFull as full:
            return self._refuse(503, str(full), signed)
        except CommitFailed:
            return self._refuse(503, "not_committed", signed)
        self._log.debug(
            "delivery_acknowledged",
            id=delivery.id,
            webhook_id=delivery.webhook_id,
            bytes=len(body),
            took_ms=self._clock() - now_ms,
        )
        return web.Response(body=b'{"received": true}', content_type="application/json")

    def _check(
        self, secrets: Sequence[str], signed: _Signed, body: bytes, now_ms: int
    ) -> Verified | Refused | bool:
        """Verified or, where unsigned deliveries are allowed, True; Refused for 401; False for 400. The body
        is looked at only when its signature holds."""
        verdict: Verified | bool = True
        if self._must_verify(secrets, signed):
            outcome = verify(
                secrets,
                signed.timestamp,
                signed.signature,
                body,
                now_ms // 1000,
                self._limits.signature_window_s,
            )
            if isinstance(outcome, Refused):
                return outcome
            verdict = outcome
        return verdict if is_json_object(body) else False

    def _note_clock(self, signed: _Signed, checked: Verified | Refused | bool) -> None:
        if isinstance(checked, Verified):
            if checked.secret_index:
                self._metrics.old_secret.inc()
        elif not isinstance(checked, Refused) or checked.reason is not RefusalReason.STALE:
            return
        if signed.signature is not None and checked.signed_s is not None:
            self._offset.note(signed.signature, signed_s=checked.signed_s, monotonic_s=time.monotonic())

    def _refuse(self, status: int, reason: str, signed: _Signed | None = None) -> web.Response:
        self._metrics.count_refusal(reason)
        # Whoever forges or floods must not fill the disk with our log: one line per reason and interval.
        if (times := self._seldom.due(reason)) is not None:
            webhook_id = _storable_header(signed.webhook_id) if signed else None
            log.warning(
                "delivery_refused", status=status, reason=str(reason), webhook_id=webhook_id, times=times
            )
        response = _json_response(status, error=str(reason))
        if status == 415:
            response.headers["Accept-Encoding"] = "identity"
        if status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        if status in (408, 413):
            # aiohttp closes on an unread rest anyway; this tells the sender so.
            response.force_close()
        return response


class _Seldom:
    """Which of many equal events to tell."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}  # reason -> (when last told, how many since)

    def due(self, reason: str) -> int | None:
        """How many times it happened since it was told last; None: keep silent."""
        now_s = time.monotonic()
        told_s, times = self._told.get(reason, (float("-inf"), 0))
        if now_s - told_s < REFUSALS_TOLD_EVERY_S:
            self._told[reason] = (told_s, times + 1)
            return None
        self._told[reason] = (now_s, 0)
        return times + 1


def _id_of(account: str, signed: _Signed, checked: Verified | bool, now_ms: int) -> str:
    # What nobody signed has no identity: a stranger could take the place of a delivery that is still to come.
    if not isinstance(checked, Verified) or signed.signature is None:
        return new_id(now_ms)
    return signed_delivery_id(account, signed.webhook_id, checked.signed_s, signed.signature)


def _account_of(request: web.Request) -> str:
    """The account at whose address a request came."""
    return request.match_info.get("account", DEFAULT_ACCOUNT)


def is_json_object(body: bytes) -> bool:
    """Whether `body` is one JSON object, of whatever shape, half a surrogate pair in it or not. Nesting
    deeper than any parser of ours follows is taken: it stays as evidence, set aside by settlement (R23).
    """
    try:
        if not body.isascii():
            body.decode()
        decode(_json_object, body)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    except RecursionError:
        return True
    return True


def _storable_header(value: str | None) -> str | None:
    """A header as it may be stored and logged: printable ASCII, bounded. PostgreSQL takes no NUL."""
    if value is None:
        return None
    return printable_ascii(value[:HEADER_CHARS_MAX])


def _json_response(status: int, **fields: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(fields), content_type="application/json")
