"""Notices that are stored: each is logged once and sent until it is taken or given up.

A turn is bounded and never waits for longer than one request may take, so a receiver that is away holds
nothing up. Two workers never try the same notice at the same time; a worker that dies in the middle leaves it
to the next, so a receiver may see one twice, under the same `webhook-id`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.domain.notices.notice import GONE, Answered, DueNotice, NoticeState, Outcome, outcome_of
from app.limits import NoticeLimits, to_ms
from app.ports import Clock, Jitter

if TYPE_CHECKING:
    from app.store import Store

Post = Callable[[str, int, bytes], Awaitable[Answered]]
"""(notice id, time of the try in seconds, body) -> how it ended."""


class Notifier:
    """Sends for one process. `post` None: there is nowhere to send to, and the log is all."""

    def __init__(
        self, store: "Store", post: Post | None, *, limits: NoticeLimits, clock: Clock, jitter: Jitter
    ) -> None:
        self._store = store
        self._post = post
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._gone = False

    async def send_due(self) -> list[tuple[DueNotice, Outcome]]:
        """One turn: what was tried, and what became of it. A notice at its first try is to be logged by the
        caller."""
        now = self._clock()
        due = await self._store.notices.claim_due_notices(
            limit=self._limits.notice_size,
            now_ms=now,
            lease_until_ms=now + to_ms(self._limits.notice_lease_s),
        )
        ended = list(zip(due, await asyncio.gather(*map(self._try_alone, due)), strict=True))
        if ended:
            await self._store.notices.record_tries(ended, self._clock())
        return ended

    async def _try_alone(self, notice: DueNotice) -> Outcome:
        """One that cannot even be sent is put off, and given up in the end, like one that is not taken."""
        try:
            return await self._try(notice)
        except Exception as error:
            answered = Answered(None, error=type(error).__name__)
            return outcome_of(
                answered, tries=notice.tries, tries_max=self._limits.notice_tries_max, jitter=self._jitter()
            )

    async def _try(self, notice: DueNotice) -> Outcome:
        if self._post is None:
            return Outcome(NoticeState.LOGGED)
        if self._gone:
            return Outcome(NoticeState.LOGGED, error="not sent: the receiver answered 410 before")
        answered = await self._post(notice.id, self._clock() // 1000, notice.body.encode())
        if answered.status == GONE:
            # Standard Webhooks: send it nothing more. A worker that starts anew asks once more.
            self._gone = True
        return outcome_of(
            answered, tries=notice.tries, tries_max=self._limits.notice_tries_max, jitter=self._jitter()
        )
