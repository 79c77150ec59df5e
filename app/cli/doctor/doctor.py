"""Looks at everything a real run needs, and says what to do about each fault. Changes nothing."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any

from app.cli.doctor.ages import check_ages
from app.cli.doctor.balance import check_balance
from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks
from app.cli.doctor.configuration import check_configuration, check_settings
from app.cli.doctor.database import check_database
from app.cli.doctor.provider import check_extra_accounts, check_provider, check_webhook
from app.cli.doctor.redis import check_redis
from app.cli.doctor.replica import check_replica
from app.cli.doctor.scraped import check_scraped
from app.cli.doctor.stored import asked_of, check_inbox, check_upgrade, check_worker, receivers_of
from app.config import Settings
from app.notice_client import open_notice_client
from app.settings_text import ConfigError

CHECK_TIMEOUT_S = 8.0


async def examine(settings: Settings, clocks: Clocks | None = None) -> list[Check]:
    """Every check, in the order in which faults should be dealt with."""
    clocks = clocks or Clocks()
    receivers = await _receivers(settings)
    # Where PUBLIC_URL is not set here, workers announce what `web` says of itself.
    addressed = settings if settings.public_url or not receivers else settings.reached_at(receivers[0])
    asked = await asyncio.gather(
        _in_time("database", check_database(settings, clocks)),
        _in_time("replica", check_replica(settings)),
        _in_time("upgrade", check_upgrade(settings)),
        _in_time("inbox", check_inbox(settings)),
        _in_time("redis", check_redis(settings, clocks)),
        _in_time("provider", check_provider(settings, clocks=clocks)),
        _in_time("balance", check_balance(settings)),
        _in_time("webhook", check_webhook(addressed)),
        _in_time("worker", check_worker(settings)),
        _in_time("ages", check_ages(settings)),
        _in_time("processes", check_scraped(settings)),
        _in_time("further accounts", check_extra_accounts(addressed)),
    )
    return [
        *check_settings(settings),
        *check_configuration(settings, receivers),
        *check_notices(settings),
        *itertools.chain.from_iterable(asked),
        *clocks.checks(),
    ]


async def _receivers(settings: Settings) -> list[str]:
    """Where each `web` that runs says that it is reached; empty while the database cannot tell."""
    with contextlib.suppress(TimeoutError):  # reported by the check of the database
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await asked_of(settings, receivers_of) or []
    return []


async def _in_time(name: str, check: Awaitable[Check | list[Check]]) -> list[Check]:
    """Each check alone: what hangs is reported as that, and keeps nobody from the others."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            found = await check
    except TimeoutError:
        remedy = "something accepts the connection and does not answer: look at it, and at what is before it"
        return [Check(name, "fault", f"no answer within {CHECK_TIMEOUT_S:g} s", remedy)]
    return [found] if isinstance(found, Check) else found


def check_notices(settings: Settings) -> list[Check]:
    """A worker does not start with settings of notices that cannot work."""
    try:
        open_notice_client(settings)
    except ConfigError as error:
        return [Check("notices", "fault", f"{error}; worker will not start", "correct it, or unset both")]
    return []


def document(checks: list[Check]) -> dict[str, Any]:
    """As --json prints it."""
    faults = [check for check in checks if check.state == "fault"]
    return {
        "healthy": not faults,
        "checks": [asdict(check) for check in checks],
        "next": next((check.remedy for check in faults if check.remedy), None),
    }
