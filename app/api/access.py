"""Whose request it is, what its token may do, and how many requests it may send."""

import asyncio
import math
from dataclasses import dataclass

import structlog
from multidict import MultiMapping

from app.api.problems import FORBIDDEN, RATE_LIMITED, UNAUTHORIZED, FieldError, Problem
from app.api.route import Caller, Route
from app.domain.access import NO_HASH, Scope, TokenRow, is_same, prefix_of, webhook_secret
from app.domain.relay.message import NewEndpoint
from app.ports import Clock
from app.store import Store

log = structlog.get_logger(__name__)

KNOWN_FOR_MS = 2_000
"""A token that was read is believed for so long: a revoked one works no longer than this. Without it each
request would cost a read."""
KNOWN_MAX = 1_000
USED_EVERY_MS = 60_000
"""How often the last use of a token is written."""
NO_TOKEN = "not_a_token"  # noqa: S105 - a word for programs
"""Code of the error about what is given as one, and is none by its form."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tallyhook"'}


class Access:
    """The tokens of one store, as requests bring them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[TokenRow, int]] = {}
        """By prefix, with the time of the reading."""
        self._looking: dict[str, asyncio.Future[TokenRow | None]] = {}
        self._noted_ms: dict[str, int] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def caller_of(self, headers: MultiMapping[str]) -> Caller:
        """Raises Problem for a request without a valid token, and for one with two: a proxy before us may
        have looked at the other."""
        given, _ = _given(headers)
        return await self.caller_with(given)

    def known_caller(self, headers: MultiMapping[str]) -> Caller | None:
        """The same without a look at the database; None: it needs one, or it will be refused."""
        try:
            given, prefix = _given(headers)
            token = self._recent(prefix, self._clock())
            return self.admitted(token) if token is not None and is_same(given, token.sha256) else None
        except Problem:
            return None

    async def caller_with(self, given: str) -> Caller:
        """Whose token this is. Raises Problem for what is none, and for one that has ended."""
        prefix = prefix_of(given)
        token = await self._token(prefix, self._clock()) if prefix else None
        # Compared also where there is none, so that both take as long.
        same = is_same(given, token.sha256 if token else NO_HASH)
        return self.admitted(token if same else None)

    def admitted(self, token: TokenRow | None) -> Caller:
        """Who comes with this token, which is used by that. Raises Problem for none, and for one that has
        ended."""
        now_ms = self._clock()
        if token is None or not token.is_valid(now_ms):
            raise _refused("this token is unknown, expired or revoked: tallyhook token list")
        self._note_use(token, now_ms)
        return Caller(token.id, token.name, Scope(token.scope), token.account, _endpoint_of(token))

    async def _token(self, prefix: str, now_ms: int) -> TokenRow | None:
        if (known := self._recent(prefix, now_ms)) is not None:
            return known
        # One look for all who ask meanwhile.
        looking = self._looking.get(prefix)
        if looking is None:
            looking = asyncio.ensure_future(self._look(prefix, now_ms))
            self._looking[prefix] = looking
            looking.add_done_callback(lambda _: self._looking.pop(prefix, None))
        return await asyncio.shield(looking)

    def _recent(self, prefix: str, now_ms: int) -> TokenRow | None:
        known = self._known.get(prefix)
        return known[0] if known is not None and 0 <= now_ms - known[1] < KNOWN_FOR_MS else None

    async def _look(self, prefix: str, now_ms: int) -> TokenRow | None:
        token = await self._store.access.find_token(prefix)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.pop(prefix, None)
        if token is not None:
            self._known[prefix] = token, now_ms
        return token

    def _note_use(self, token: TokenRow, now_ms: int) -> None:
        """Written beside the request, which does not wait for it, nor fails with it."""
        last_ms = max(self._noted_ms.get(token.id, 0), token.last_used_at_ms or 0)
        if now_ms - last_ms < USED_EVERY_MS:
            return
        self._noted_ms[token.id] = now_ms
        task = asyncio.create_task(self._write_use(token.id, now_ms), name="token use")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_use(self, token_id: str, now_ms: int) -> None:
        try:
            await self._store.access.note_use(token_id, now_ms)
        except Exception as error:
            log.info("token_use_not_noted", error=type(error).__name__)

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._notes, return_exceptions=True)


def _endpoint_of(token: TokenRow) -> NewEndpoint | None:
    if token.webhook_url is None:
        return None
    return NewEndpoint(token.webhook_url, webhook_secret(token.sha256), token_id=token.id)


def refuse_without_scope(caller: Caller, route: Route) -> None:
    """Raises Problem for a token that may not do what a route does."""
    if route.scope is not None and not caller.scope.includes(route.scope):
        needs = f'error="insufficient_scope", scope="{route.scope}"'
        raise Problem(
            FORBIDDEN,
            f"this token has the scope {caller.scope}, and {route.scope} is needed: use another token",
            headers={"WWW-Authenticate": f"{CHALLENGE['WWW-Authenticate']}, {needs}"},
        )


def _given(headers: MultiMapping[str]) -> tuple[str, str]:
    """What is given as a token, and the prefix of it by which it is found. Raises Problem."""
    if len(headers.getall("Authorization", [])) > 1:
        raise _refused("send one Authorization header")
    kind, _, given = headers.get("Authorization", "").partition(" ")
    given = given.strip()
    prefix = prefix_of(given) if kind.lower() == "bearer" else None
    if prefix is None:
        remedy = "send Authorization: Bearer and a token; tallyhook token create makes one"
        is_given = kind.lower() == "bearer" and given
        code = NO_TOKEN if is_given else "missing"
        raise _refused(remedy, FieldError(field="Authorization", code=code, remedy=remedy))
    return given, prefix


def _refused(detail: str, *errors: FieldError) -> Problem:
    return Problem(UNAUTHORIZED, detail, errors=errors, headers=CHALLENGE)


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class RequestRates:
    """A bucket for each token, in this process: it holds one second's requests and fills at the rate."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._size = max(1.0, rate_per_s)
        self._buckets: dict[str, _Bucket] = {}

    def take(self, token_id: str, now_s: float) -> dict[str, str]:
        """The headers that say what is left (draft-ietf-httpapi-ratelimit-headers-11). Raises Problem when
        nothing is. `now_s`: monotonic."""
        bucket = self._buckets.setdefault(token_id, _Bucket(self._size, now_s))
        filled = bucket.level + (now_s - bucket.at_s) * self._rate_per_s
        bucket.level, bucket.at_s = min(self._size, filled), now_s
        if bucket.level < 1:
            wait_s = (1 - bucket.level) / self._rate_per_s
            headers = self._headers(bucket) | {"Retry-After": str(max(1, math.ceil(wait_s)))}
            rate = f"{self._rate_per_s:g} requests a second"
            raise Problem(RATE_LIMITED, f"a token may send {rate}: wait as Retry-After says", headers=headers)
        bucket.level -= 1
        return self._headers(bucket)

    def give_back(self, token_id: str) -> None:
        """Of a request that takes again."""
        self._buckets[token_id].level += 1

    def _headers(self, bucket: _Bucket) -> dict[str, str]:
        full_in_s = math.ceil((self._size - bucket.level) / self._rate_per_s)
        return {
            "RateLimit-Policy": f'"token";q={int(self._size)};w={math.ceil(self._size / self._rate_per_s)}',
            "RateLimit": f'"token";r={int(bucket.level)};t={max(1, full_in_s)}',
        }
