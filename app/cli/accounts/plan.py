"""The commands plan and statement: where an account stands in its cycle, and any cycle line by line."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import Account, AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from app.domain.accounting.billing import Cycle
    from app.store import Store

BURN_HOURS = 24


def plan(account: Account = "default", as_json: AsJson = False) -> None:
    """Show plan and cycle of an account: allocation, used, held, unknown, remaining, days left, burn rate.

    From the books alone; a worker keeps them up to the minute, and tallyhook audit does so once.
    """
    from app.bootstrap import now_ms
    from app.cli.accounts.draw import draw_plan
    from app.cli.terminal import show
    from app.run_options import refuse_unknown_account
    from app.services.audit import cycle_position
    from app.views.accounts import plan_document

    settings = settings_for(log_level="warning")
    refuse_unknown_account(settings, account)

    async def work(store: "Store") -> None:
        now = now_ms()
        found = await cycle_position(store, account, now)
        if found is None:
            raise _no_cycle(account)
        burned = await store.charges.burn(account, now - BURN_HOURS * 3_600_000)
        balance = await store.audits.last_snapshot(account, now)
        document = plan_document(found, balance, burned, burn_hours=BURN_HOURS, now_ms=now)
        show(document, as_json=as_json, draw=draw_plan)

    with_store(settings, work)


def statement(
    cycle: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="A day of the cycle; default: the running one.")
    ] = "",
    account: Account = "default",
    as_json: AsJson = False,
) -> None:
    """Show a billing cycle of an account line by line, to be laid beside the provider's.

    What was allocated, what each engine cost on each day, changes of plan, what others spent, what expired,
    overage, and the balance after each line.
    """
    from app.cli.accounts.draw import draw_statement
    from app.cli.terminal import show
    from app.run_options import refuse_unknown_account
    from app.services import audit
    from app.views.accounts import statement_document

    settings = settings_for(log_level="warning")
    refuse_unknown_account(settings, account)

    async def work(store: "Store") -> None:
        chosen = await chosen_cycle(store, account, cycle)
        books = await audit.statement(store, account, chosen)
        show(statement_document(books), as_json=as_json, draw=draw_statement)

    with_store(settings, work)


async def chosen_cycle(store: "Store", account: str, day: str) -> "Cycle":
    """The cycle that a day lies in; empty: the running one. Raises UserError."""
    from app.bootstrap import now_ms
    from app.domain.accounting.billing import cycles, running
    from app.domain.time_format import DAY_MS, iso_day

    starts_ms = _day_ms(day) if day else 0
    known = cycles(await store.audits.seen_resets(account))
    if not known:
        raise _no_cycle(account)
    if not day:
        return running(known, now_ms()) or known[-1]
    # The day on which one ends and the next begins is the next one's.
    found = [c for c in known if c.starts_ms < starts_ms + DAY_MS and starts_ms < c.ends_ms]
    if not found:
        periods = [f"{iso_day(c.starts_ms)} to {iso_day(c.ends_ms)}" for c in known]
        raise UserError(
            "unknown_cycle",
            f"no cycle of account {account} is known for {day}",
            "use a day of one of these",
            details=periods,
            exit_code=USAGE,
        )
    return found[-1]


def _day_ms(day: str) -> int:
    from app.domain.time_format import day_start_ms

    try:
        return day_start_ms(day)
    except ValueError as error:
        problem = f"--cycle {day!r} is not a day"
        raise UserError("bad_option", problem, "write it as 2026-11-21", exit_code=USAGE) from error


def _no_cycle(account: str) -> UserError:
    return UserError(
        "no_cycle",
        f"no billing cycle of account {account} is known: the provider has told none yet",
        "run tallyhook audit; a free account has none, and neither have editions without GET /v1/credits",
    )


PLAN_EXAMPLES = examples("tallyhook plan", "tallyhook plan --account eu --json | jq .available")
STATEMENT_EXAMPLES = examples("tallyhook statement", "tallyhook statement --cycle 2026-10-15 --json")
