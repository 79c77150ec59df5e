"""Who is signed in: a token is given once, and the browser keeps the random id of a session on it.

The id is stored as a hash, as tokens are. Every sign-in makes a new one, so nobody can plant theirs; it ends
after LASTS_MS, at the sign-out, and with its token.
"""

import os
from dataclasses import dataclass

from aiohttp import web

from app.api.access import Access
from app.api.problems import RATE_LIMITED, Problem
from app.api.route import Caller
from app.domain.access import TokenRow
from app.domain.page_session import (
    LASTS_MS,
    SECRET_BYTES,
    PageSessionRow,
    hash_of_session,
    is_form_token,
    make_session,
)
from app.page.security import is_by_tls
from app.ports import Clock
from app.store import Store

FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
KNOWN_FOR_MS = 2_000
"""A session that was read is believed for so long, as a token is."""
KNOWN_MAX = 1_000
TRIES_MAX, TRIES_WINDOW_MS = 10, 60_000
"""Sign-ins that fail, from one address. Nobody guesses a token; this spares who reads the log."""
ADDRESSES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """A session as it was read."""

    session: PageSessionRow
    token: TokenRow
    read_at_ms: int


class Sessions:
    """Of one store, as browsers bring them."""

    def __init__(self, store: Store, access: Access, clock: Clock) -> None:
        self._store, self._access, self._clock = store, access, clock
        self._known: dict[str, Known] = {}
        self.tries = Tries(clock)

    async def caller_of(self, cookie: str) -> Caller | None:
        """Who is signed in; None: nobody, or not any more."""
        now_ms = self._clock()
        sha256 = hash_of_session(cookie)
        known = await self._find(sha256, now_ms) if sha256 else None
        if known is None or known.session.expires_at_ms <= now_ms or not known.token.is_valid(now_ms):
            return None
        return self._access.admitted(known.token)

    async def _find(self, sha256: str, now_ms: int) -> Known | None:
        known = self._known.get(sha256)
        if known is not None and 0 <= now_ms - known.read_at_ms < KNOWN_FOR_MS:
            return known
        found = await self._store.page_sessions.find_session(sha256)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.pop(sha256, None)
        if found is not None:
            self._known[sha256] = Known(*found, now_ms)
        return self._known.get(sha256)

    async def begin(self, caller: Caller, instead_of: str) -> str:
        """What the browser keeps from now on; what it had is worth nothing any more."""
        made, now_ms = make_session(os.urandom(SECRET_BYTES)), self._clock()
        before = hash_of_session(instead_of)
        row = PageSessionRow(hash_of_session(made) or "", caller.token_id, now_ms, now_ms + LASTS_MS)
        await self._store.page_sessions.begin_session(row, before)
        self._known.pop(before or "", None)
        return made

    async def end(self, cookie: str) -> None:
        """Sign out."""
        if sha256 := hash_of_session(cookie):
            await self._store.page_sessions.end_session(sha256)
            self._known.pop(sha256, None)


class Tries:
    """Sign-ins that failed of late, by address, in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: dict[str, list[int]] = {}

    def refuse_too_many(self, address: str) -> None:
        """Raises Problem when too many have failed."""
        since_ms = self._clock() - TRIES_WINDOW_MS
        lately = [at_ms for at_ms in self._failed.get(address, []) if at_ms > since_ms]
        if len(lately) >= TRIES_MAX:
            wait_s = max(1, (lately[0] - since_ms) // 1000)
            raise Problem(
                RATE_LIMITED,
                f"too many sign-ins failed: try again in {wait_s} seconds",
                headers={"Retry-After": str(wait_s)},
            )

    def note_failed(self, address: str) -> None:
        """One more; the oldest are forgotten."""
        if address not in self._failed and len(self._failed) >= ADDRESSES_MAX:
            del self._failed[next(iter(self._failed))]
        self._failed[address] = [*self._failed.get(address, []), self._clock()][-TRIES_MAX:]


def cookie_name(request: web.Request) -> str:
    """With the port: a browser sends the cookies of one host to every port of it."""
    return f"tallyhook_{request.url.port or 80}"


def cookie_of(request: web.Request) -> str:
    """What the browser keeps; empty: nothing."""
    return request.cookies.get(cookie_name(request), "")


def set_cookie(request: web.Request, response: web.Response, session: str) -> None:
    """Let the browser keep a session, where no script and no other site gets at it; empty: forget it."""
    response.set_cookie(
        cookie_name(request),
        session,
        httponly=True,
        samesite="Strict",
        secure=is_by_tls(request),
        path="/",
        max_age=LASTS_MS // 1000 if session else 0,
    )


def is_form_of(form: dict[str, str], cookie: str) -> bool:
    """Whether a form was made for this session."""
    return is_form_token(form.get(FORM_TOKEN, ""), cookie)
