"""The receiver: verifies a delivery, has its raw bytes committed, acknowledges. The 2xx is decided by
`_queue`, for what came in pieces by `_store_and_acknowledge`. It does not know what a delivery says;
settlement decides about that later.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from app.config import DEFAULT_ACCOUNT
from app.domain.delivery import RawDelivery
from app.limits import Limits
from app.ports import Clock
from app.provider.signature import RefusalReason, Refused, Verified, answer_challenge, ill_formed, verify
from app.waiting import set_within
from app.web.metrics import Metrics
from app.web.receiver.acknowledgement import acknowledge, acknowledgement_bytes
from app.web.receiver.body import (
    BodyRefused,
    ReadBudget,
    answer_and_cut,
    answer_expect,
    has_content_coding,
    has_long_unread_rest,
    read_body,
)
from app.web.receiver.clock_offset import ClockOffset
from app.web.receiver.direct import DirectConnection, Refusal, Taken
from app.web.receiver.inbox import CommitFailed, Inbox, InboxFull
from app.web.receiver.received import (
    Outcome,
    SignatureHeaders,
    WithoutSignature,
    delivery_of,
    is_json_object,
    storable_header,
)

log = structlog.get_logger(__name__)

PATH = "/webhooks/cloro"
ACCOUNT_PATH = PATH + "/{account}"
"""Of an extra account: verified with its own secrets only."""
RETRY_AFTER_S = 5
"""Sent with each 503. Group commits last milliseconds; a database that restarts is back in seconds."""
OFF_LOOP_FROM_BYTES = 256 * 1024
"""Verifying costs about 1 ms/MB; from this size on it is done in a thread, so that other requests do not wait
(W10)."""
LINGERING_TIME_S = 1.0
"""How long a connection stays open, so that the sender sees the answer to a refused body. The rest of a short
body is read and thrown away meanwhile."""
REFUSAL_LOG_EVERY_S = 10.0
CHALLENGE = re.compile(r"[0-9a-f]{16,64}")

NOT_COMMITTED = "not_committed"


class Receiver:
    """Handlers of the webhook's path."""

    def __init__(
        self,
        inbox: Inbox,
        secrets: Mapping[str, Sequence[str]],
        offset: ClockOffset,
        metrics: Metrics,
        *,
        limits: Limits,
        clock: Clock,
        allow_unsigned: bool,
    ) -> None:
        self._inbox = inbox
        self._secrets = {account: tuple(known) for account, known in secrets.items()}
        self._accounts = {PATH: DEFAULT_ACCOUNT} | {f"{PATH}/{account}": account for account in secrets}
        self._offset = offset
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._allow_unsigned = allow_unsigned
        self._read_budget = ReadBudget(limits.waiting_bytes_max)
        self._large_check = asyncio.Semaphore(1)
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._refusal_log = _RefusalLogLimit()
        # Bound once: the module's logger is set up anew by each call, even of what is not logged.
        self._log = log.bind()

    @property
    def unverified_bytes(self) -> int:
        """Of large bodies that are being read or verified, beyond the free part of each."""
        return self._read_budget.used_bytes

    async def handle_delivery(self, request: web.Request) -> web.StreamResponse:
        """Answer one delivery. 200 only after its bytes are committed; 401 and 4xx leave nothing behind."""
        self._begin()
        try:
            response = self._refused_when_taken(request) or await self._verify_and_store(request)
            self._metrics.count_answer(response.status)
            if response.status != 200 and has_long_unread_rest(request):
                await answer_and_cut(request, response, lingering_s=LINGERING_TIME_S)
            return response
        finally:
            self._end()

    def take(self, message: RawRequestMessage, payload: StreamReader, connection: DirectConnection) -> Taken:
        """Do with a whole POST what `handle_delivery` does, and have `connection` answer it. LEFT where that
        is no delivery, or not one to be taken now."""
        account, headers = self._accounts.get(message.path), message.headers
        if account is None or self._inbox.refusal_reason is not None or has_content_coding(headers):
            return Taken.LEFT
        if payload.total_bytes > self._limits.body_bytes_max:
            return Taken.LEFT
        signature, body, now_ms = SignatureHeaders.among(headers), payload.read_nowait(), self._clock()
        outcome = self._verify_body(self._secrets[account], signature, body, now_ms)
        delivery = self._delivery_or_refusal(account, signature, body, now_ms, outcome)
        if isinstance(delivery, RawDelivery):
            return self._queue(delivery, connection)
        connection.refusal = delivery
        return Taken.REFUSED

    def _queue(self, delivery: RawDelivery, connection: DirectConnection) -> Taken:
        """What `_store_and_acknowledge` does, without waiting."""

        def finish(failure: CommitFailed | None) -> None:
            if failure is None:
                self._note_acknowledged(delivery)
                self._metrics.count_answer(200)
                connection.answer(acknowledgement_bytes())
            else:
                connection.hand_over((503, NOT_COMMITTED))
            self._end()

        try:
            self._inbox.queue_delivery(delivery, finish)
        except InboxFull as full:
            connection.refusal = 503, str(full)
            return Taken.REFUSED
        self._begin()
        return Taken.QUEUED

    def _refused_when_taken(self, request: web.BaseRequest) -> web.StreamResponse | None:
        connection = request.protocol
        refusal = connection.pop_refusal() if isinstance(connection, DirectConnection) else None
        return None if refusal is None else self._refuse(*refusal, SignatureHeaders.among(request.headers))

    def _begin(self) -> None:
        self._in_flight += 1
        self._is_idle.clear()

    def _end(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._is_idle.set()

    async def wait_until_idle(self, within_s: float) -> None:
        """Wait until every delivery that has begun to arrive is answered; `within_s` at most."""
        await set_within(self._is_idle, within_s)

    async def handle_expect(self, request: web.Request) -> web.StreamResponse | None:
        """For a sender that waits for 100 Continue before it sends the body: what is refused by its head is
        refused here, so the body is not sent."""
        headers = SignatureHeaders.among(request.headers)
        if self._inbox.refusal_reason is not None or self._refusal_by_head(request, headers) is not None:
            return await self.handle_delivery(request)
        return await answer_expect(request)

    async def handle_challenge(self, request: web.Request) -> web.Response:
        """Proof that whoever answers under this URL holds our secret; `tallyhook doctor` calls it."""
        challenge = request.query.get("challenge", "")
        if not CHALLENGE.fullmatch(challenge):
            return _json_response(400, error="challenge must be 16 to 64 lower-case hex digits")
        secrets = self._secrets.get(_account_of(request))
        if not secrets:
            return _json_response(404, error="no secret is configured")
        return _json_response(200, answer=answer_challenge(secrets[0], challenge))

    async def _verify_and_store(self, request: web.Request) -> web.StreamResponse:
        """Refuse by the head, read, verify; what is valid goes to `_store_and_acknowledge`."""
        headers = SignatureHeaders.among(request.headers)
        inbox_refusal = self._inbox.refusal_reason
        refused = self._refusal_by_head(request, headers) if inbox_refusal is None else (503, inbox_refusal)
        if refused is not None:
            return self._refuse(*refused, headers)
        limits = self._limits
        try:
            body = await read_body(
                request,
                self._read_budget,
                bytes_max=limits.body_bytes_max,
                timeout_s=limits.body_read_timeout_s,
            )
        except BodyRefused as refused_body:
            return self._refuse(refused_body.status, refused_body.reason)
        account, now_ms = _account_of(request), self._clock()
        secrets = self._secrets[account]
        if len(body) < OFF_LOOP_FROM_BYTES:
            outcome = self._verify_body(secrets, headers, body, now_ms)
        else:
            with self._read_budget.reserved(len(body)):
                outcome = await self._verify_large_body(secrets, headers, body, now_ms)
        delivery = self._delivery_or_refusal(account, headers, body, now_ms, outcome)
        if isinstance(delivery, RawDelivery):
            return await self._store_and_acknowledge(request, delivery, headers)
        return self._refuse(*delivery, headers)

    def _delivery_or_refusal(
        self, account: str, headers: SignatureHeaders, body: bytes, now_ms: int, outcome: Outcome
    ) -> RawDelivery | Refusal:
        """What is to be stored, by the `outcome` of verifying it."""
        self._note_signature(headers, outcome)
        if isinstance(outcome, Refused):
            return 401, outcome.reason
        if outcome is WithoutSignature.MALFORMED:
            return 400, outcome.value
        return delivery_of(account, headers, body, now_ms, outcome)

    def _refusal_by_head(self, request: web.Request, headers: SignatureHeaders) -> Refusal | None:
        """Status and reason if the head alone shows that the delivery is refused; then its body is not read.
        Everything here costs the same, whatever a stranger sends."""
        secrets = self._secrets.get(_account_of(request))
        if secrets is None:
            return 404, "unknown_account"
        if (request.content_length or 0) > self._limits.body_bytes_max:
            return 413, "oversize"
        if has_content_coding(request.headers):
            return 415, "content_encoding"
        if not self._must_be_signed(secrets, headers):
            return None
        refused = ill_formed(headers.timestamp, headers.signature)
        return None if refused is None else (401, refused.reason)

    def _must_be_signed(self, secrets: Sequence[str], headers: SignatureHeaders) -> bool:
        return not self._allow_unsigned or (bool(secrets) and not headers.is_unsigned)

    async def _verify_large_body(
        self, secrets: Sequence[str], headers: SignatureHeaders, body: bytes, now_ms: int
    ) -> Outcome:
        """One at a time: whoever forges large bodies gets one processor at most, and waits for himself."""
        async with self._large_check:
            return await asyncio.to_thread(self._verify_body, secrets, headers, body, now_ms)

    async def _store_and_acknowledge(
        self, request: web.Request, delivery: RawDelivery, headers: SignatureHeaders
    ) -> web.StreamResponse:
        """Where a delivery gets its 2xx, as in `_queue`: after the commit that holds its raw bytes. 503 when
        the inbox is full or the commit failed; then the provider sends it again."""
        try:
            await self._inbox.commit_delivery(delivery)
        except InboxFull as full:
            return self._refuse(503, str(full), headers)
        except CommitFailed:
            return self._refuse(503, NOT_COMMITTED, headers)
        self._note_acknowledged(delivery)
        return acknowledge(request)

    def _note_acknowledged(self, delivery: RawDelivery) -> None:
        self._log.debug(
            "delivery_acknowledged",
            id=delivery.id,
            webhook_id=delivery.webhook_id,
            bytes=len(delivery.body),
            took_ms=self._clock() - delivery.received_at_ms,
        )

    def _verify_body(
        self, secrets: Sequence[str], headers: SignatureHeaders, body: bytes, now_ms: int
    ) -> Outcome:
        """Refused is answered with 401, MALFORMED with 400. The body is parsed only under a valid
        signature."""
        outcome: Outcome = WithoutSignature.ALLOWED
        if self._must_be_signed(secrets, headers):
            outcome = verify(
                secrets,
                headers.timestamp,
                headers.signature,
                body,
                now_ms // 1000,
                self._limits.signature_window_s,
            )
            if isinstance(outcome, Refused):
                return outcome
        return outcome if is_json_object(body) else WithoutSignature.MALFORMED

    def _note_signature(self, headers: SignatureHeaders, outcome: Outcome) -> None:
        """Count uses of an old secret; note how far our clock is from a signer who knows a secret."""
        if isinstance(outcome, Verified):
            if outcome.secret_index:
                self._metrics.old_secret.inc()
        elif not isinstance(outcome, Refused) or outcome.reason is not RefusalReason.STALE:
            return
        if headers.signature is not None and outcome.signed_s is not None:
            self._offset.note(headers.signature, signed_s=outcome.signed_s, monotonic_s=time.monotonic())

    def _refuse(self, status: int, reason: str, headers: SignatureHeaders | None = None) -> web.Response:
        """Count, log and build the answer of a delivery that is not stored."""
        self._metrics.count_refusal(reason)
        # Whoever forges or floods must not fill the disk with our log: one line per reason and interval.
        if (times := self._refusal_log.times_to_log(reason)) is not None:
            webhook_id = storable_header(headers.webhook_id) if headers else None
            log.warning(
                "delivery_refused", status=status, reason=str(reason), webhook_id=webhook_id, times=times
            )
        response = _json_response(status, error=str(reason))
        if status == 415:
            response.headers["Accept-Encoding"] = "identity"
        if status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        if status in (408, 413):
            # aiohttp closes on an unread rest anyway; this says so to the sender.
            response.force_close()
        return response


class _RefusalLogLimit:
    """Lets one line per reason and REFUSAL_LOG_EVERY_S into the log."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[float, int]] = {}  # reason -> (when last logged, how many since)

    def times_to_log(self, reason: str) -> int | None:
        """How often it happened since its last line, this time included; None: write no line."""
        now_s = time.monotonic()
        logged_s, times = self._logged.get(reason, (float("-inf"), 0))
        if now_s - logged_s < REFUSAL_LOG_EVERY_S:
            self._logged[reason] = (logged_s, times + 1)
            return None
        self._logged[reason] = (now_s, 0)
        return times + 1


def _account_of(request: web.Request) -> str:
    """The account whose address a request was sent to."""
    return request.match_info.get("account", DEFAULT_ACCOUNT)


def _json_response(status: int, **fields: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(fields), content_type="application/json")
