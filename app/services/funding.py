"""Runs that paused for want of credits go on by themselves: after the cycle's end, an upgrade, a try."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from app.domain.admission import TASK_CREDITS_MIN
from app.domain.run_reason import ReasonCode
from app.ports import Balance, Clock, Provider


class FundingStore(Protocol):
    """What this needs of the store."""

    async def paused_accounts(self, code: ReasonCode) -> list[str]: ...

    async def resume_account_if_paused_for(self, account: str, code: ReasonCode) -> int: ...

    async def store_balance(self, account: str, balance: Balance) -> None: ...


class Funding:
    """Remembers, for one process, when it last looked at each account."""

    def __init__(
        self, store: FundingStore, providers: Mapping[str, Provider], *, probe_ms: int, clock: Clock
    ):
        self._store = store
        self._providers = providers
        self._probe_ms = probe_ms
        self._clock = clock
        self._looked_ms: dict[str, int] = {}

    async def resume_funded(self) -> int:
        """Resume the paused runs of accounts that have credits again. How many.

        The balance is asked for once a probe interval, which is longer than its lag. An edition that does
        not tell it (C-B22) is tried: its first refusal pauses the runs again.
        """
        resumed = 0
        for account in await self._store.paused_accounts(ReasonCode.NO_CREDITS):
            now = self._clock()
            # The first look is a whole interval after the refusal was first seen.
            if now - self._looked_ms.setdefault(account, now) < self._probe_ms:
                continue
            self._looked_ms[account] = now
            if await self._may_have_credits(account, now):
                resumed += await self._store.resume_account_if_paused_for(account, ReasonCode.NO_CREDITS)
                del self._looked_ms[account]
        return resumed

    async def _may_have_credits(self, account: str, now: int) -> bool:
        provider = self._providers.get(account)
        if provider is None:
            return False
        balance = await provider.balance(now)
        if balance is None:
            return True
        await self._store.store_balance(account, balance)
        return balance.remaining >= Decimal(TASK_CREDITS_MIN)
