"""What a caller may see: runs and accounts."""

from typing import Any

from app.api.problems import not_found
from app.api.route import Call
from app.config import DEFAULT_ACCOUNT
from app.store.read.run_pages import TimedRun


async def visible_run(call: Call[Any, Any], run_id: str) -> TimedRun:
    """A run that the caller may see. Raises Problem."""
    timed = await call.store.run_pages.run_with_id(run_id, call.caller.account)
    if timed is None:
        raise not_found("run")
    return timed


def visible_account(call: Call[Any, Any], asked: str | None) -> str:
    """The account that is meant: as asked, the caller's, or the default one. Raises Problem."""
    account = asked or call.caller.account or DEFAULT_ACCOUNT
    if not call.caller.sees(account) or account not in call.parts.settings.all_accounts():
        raise not_found("account")
    return account
