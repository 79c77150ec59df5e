"""The command audit: the provider's balance against the books, now."""

from typing import TYPE_CHECKING

import typer

from app.cli.options import Account, AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import FAILED, UserError

if TYPE_CHECKING:
    from app.config import Settings
    from app.services.audit import Audited
    from app.store import Store


def audit(account: Account = "default", as_json: AsJson = False) -> None:
    """Compare the provider's balance with the books of the running cycle.

    Every change between two balances is explained by tasks of ours, by the cycle, by a change of plan or by
    others that use the account, or it is not: then this ends with 1. A worker does the same every minute
    while credits move.
    """
    from app.cli.accounts.draw import draw_audit
    from app.cli.terminal import show
    from app.run_options import refuse_unknown_account
    from app.views.accounts import audit_document

    settings = settings_for(log_level="warning")
    refuse_unknown_account(settings, account)

    async def work(store: "Store") -> None:
        found = await audited(store, settings, account)
        show(audit_document(found), as_json=as_json, draw=draw_audit)
        if not found.drift.explained:
            raise typer.Exit(FAILED)

    with_store(settings, work)


async def audited(store: "Store", settings: "Settings", account: str) -> "Audited":
    """Audit an account now. Raises UserError when no balance of it was ever seen."""
    from app.bootstrap import now_ms, open_provider
    from app.local.embedded import running_valkey
    from app.services.audit import audit

    async with open_provider(settings, account, redis_url=running_valkey(settings)) as provider:
        found = await audit(store, account, provider, now_ms=now_ms())
    if found.balance is None and found.position is None and not found.drift.intervals:
        raise UserError(
            "no_balance",
            f"the provider tells no balance of account {account}, and none was seen before",
            "tallyhook doctor says whether it can be reached; an edition without GET /v1/credits tells its "
            "balance only with the answers of tallyhook ask",
        )
    return found


AUDIT_EXAMPLES = examples("tallyhook audit", "tallyhook audit --account eu --json | jq .unexplained")
