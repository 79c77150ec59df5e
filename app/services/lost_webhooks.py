"""Lost after the ack: the provider had a 2xx for a delivery, and no such delivery is stored (P18, W14).

The answer itself comes by poll as ever; this finds out that something between the provider and the inbox
says 2xx and keeps nothing. Judged after a grace and from the stored polls alone; asks the provider nothing.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app.domain.evidence.records import AcknowledgedWebhook
from app.domain.task import new_id
from app.ports import Clock
from app.services.isolated import Isolated

if TYPE_CHECKING:
    from app.store import Store
    from app.store.write.polls import PollWithoutDelivery

CHUNK = 200
"""Polls read at once; 200 of 18 KB are 3.6 MB."""
SKEW_MS = 360_000
"""Webhooks are named by the time of signing at the provider, whose clock a signature lets differ from ours
by 300 s; other rows by the clocks of our machines."""

ReadAcknowledged = Callable[[bytes], AcknowledgedWebhook | None]


class LostWebhookSearch:
    """Judges stored polls once they are old enough; remembers how far it came.

    A process that begins, or takes over, looks back over the provider's retention once; what was noted before
    is not noted again.
    """

    def __init__(
        self,
        store: "Store",
        read_acknowledged: ReadAcknowledged,
        *,
        clock: Clock,
        grace_ms: int,
        look_back_ms: int,
    ) -> None:
        self._store = store
        self._read = read_acknowledged
        self._clock = clock
        self._grace_ms = grace_ms
        self._look_back_ms = look_back_ms
        self._judged = self._start(clock())
        """Ids order by time: polls up to this one are judged."""

    async def judge(self) -> int:
        """How many deliveries were found to be lost that were not known to be."""
        now = self._clock()
        if self._judged > new_id(now, 0):
            # The clock was ahead: what has come since would not be looked at before that time.
            self._judged = self._start(now)
        before = new_id(now - self._grace_ms, 0)
        waiting = await self._store.polls.oldest_waiting_poll()
        end = before if waiting is None else min(before, waiting)
        found, after, isolated = 0, self._judged, Isolated()
        while polls := await self._store.polls.polls_without_delivery(after=after, before=end, limit=CHUNK):
            found += await self._note(polls, now, isolated)
            after = polls[-1].id
        # A poll that still waits to be settled is looked at then.
        self._judged = after if end != before else max(after, before)
        isolated.finish()
        return found

    def _start(self, now: int) -> str:
        return new_id(max(now - self._look_back_ms, 0), 0)

    async def _note(self, polls: "Sequence[PollWithoutDelivery]", now: int, isolated: Isolated) -> int:
        acknowledged = []
        for poll in polls:
            with isolated.alone():
                if (ack := self._read(poll.body)) is not None:
                    acknowledged.append((poll, ack))
        if not acknowledged:
            return 0
        # A delivery that was not settled, or could not be read, is stored all the same.
        since = new_id(max(min(poll.first_sent_at_ms for poll, _ in acknowledged) - SKEW_MS, 0), 0)
        stored = await self._store.polls.webhooks_without_task(since)
        lost = [(poll, _detail(ack)) for poll, ack in acknowledged if ack.provider_task_id not in stored]
        return await self._store.polls.note_lost_after_ack(lost, now) if lost else 0


def _detail(ack: AcknowledgedWebhook) -> str:
    return f"the provider had its 2xx at {ack.at or 'a time unknown'} from {ack.url}; no delivery is stored"
