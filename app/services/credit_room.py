"""What an account's balance has room for besides all that is queued here: looked at now and then, and counted
down in between."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from app.ports import Clock

if TYPE_CHECKING:
    from app.domain.accounting.balances import Balance
    from app.store import Store

LOOK_EVERY_MS = 2_000


@dataclass(slots=True)
class _Seen:
    at_ms: int
    room: Decimal | None


class CreditRooms:
    """Of one process."""

    def __init__(self, store: "Store", clock: Clock, *, balance_age_max_ms: int) -> None:
        """A balance that is older than that says nothing."""
        self._store = store
        self._clock = clock
        self._age_max_ms = balance_age_max_ms
        self._seen: dict[str, _Seen] = {}

    async def room(self, account: str) -> Decimal | None:
        """Credits; None: the balance is not known, and the workers find out."""
        now = self._clock()
        seen = self._seen.get(account)
        if seen is None or not 0 <= now - seen.at_ms < LOOK_EVERY_MS:
            # Set first: whoever comes meanwhile goes by the look before.
            self._seen[account] = _Seen(now, None if seen is None else seen.room)
            seen = self._seen[account] = _Seen(now, await self._look(account, now))
        return seen.room

    def is_known(self, account: str) -> bool:
        """Whether `room` needs no look now."""
        seen = self._seen.get(account)
        return seen is not None and 0 <= self._clock() - seen.at_ms < LOOK_EVERY_MS

    def known(self, account: str) -> Decimal | None:
        """What `room` would say now, where that needs no look."""
        return self._seen[account].room

    def take(self, account: str, credits: Decimal) -> None:
        """So much more is queued since the last look."""
        seen = self._seen.get(account)
        if seen is not None and seen.room is not None:
            seen.room -= credits

    async def _look(self, account: str, now: int) -> Decimal | None:
        balance, room = await balance_and_room(self._store, account, now)
        is_known = balance is not None and abs(now - balance.at_ms) <= self._age_max_ms
        return room if is_known else None


async def balance_and_room(
    store: "Store", account: str, now_ms: int
) -> "tuple[Balance | None, Decimal | None]":
    """The last balance that was reported, of whatever age, and what it has room for besides all that is
    queued here."""
    balance = await store.accounts.last_balance(account, now_ms)
    if balance is None:
        return None, None
    return balance, balance.remaining - (await store.standing_tasks.queued(account)).credits
