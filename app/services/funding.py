"""Runs that paused for what passes go on by themselves: for want of credits after the cycle's end, an
upgrade, a try; because something else answered in the provider's place, by a try.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.admission import TASK_CREDITS_MIN
from app.domain.run_reason import ReasonCode
from app.ports import BalanceEnd, Clock, Provider
from app.services.isolated import Isolated

if TYPE_CHECKING:
    from app.store import Store


class Funding:
    """Remembers, for one process, when it last looked at each account."""

    def __init__(self, store: "Store", providers: Mapping[str, Provider], *, probe_ms: int, clock: Clock):
        self._store = store
        self._providers = providers
        self._probe_ms = probe_ms
        self._clock = clock
        self._looked_ms: dict[tuple[str, ReasonCode], int] = {}

    async def resume_due(self) -> int:
        """Resume the paused runs of accounts that have credits again, or are to be tried again. How many.

        The balance is asked for once a probe interval, which is longer than its lag. An edition that does
        not report it (C-B22) is tried: its first refusal pauses the runs again.
        """
        resumed, isolated = 0, Isolated()
        for code in (ReasonCode.NO_CREDITS, ReasonCode.PROVIDER_AWAY):
            paused = await self._store.accounts.paused_accounts(code)
            for gone in [key for key in self._looked_ms if key[1] is code and key[0] not in paused]:
                del self._looked_ms[gone]
            for account in paused:
                now = self._clock()
                # The first look is a whole interval after the pause was first seen.
                if 0 <= now - self._looked_ms.setdefault((account, code), now) < self._probe_ms:
                    continue
                self._looked_ms[account, code] = now
                with isolated.alone():
                    if code is ReasonCode.PROVIDER_AWAY or await self._may_have_credits(account, now):
                        resumed += await self._store.accounts.resume_account_if_paused_for(account, code)
        isolated.finish()
        return resumed

    async def _may_have_credits(self, account: str, now: int) -> bool:
        provider = self._providers.get(account)
        if provider is None:
            return False
        answer = await provider.balance(now)
        if answer.balance is None:
            # It is not reported: then the provider's own refusal does. While it cannot be asked, it is not
            # tried.
            return answer.end is not BalanceEnd.UNKNOWN
        await self._store.accounts.store_balance(account, answer.balance)
        return answer.balance.remaining >= Decimal(TASK_CREDITS_MIN)
