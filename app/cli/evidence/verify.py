"""`tallyhook verify`: chooses what to go through, spreads it over processes, and says what was found."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import FAILED, USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.config import Settings
    from app.domain.retention import Receipt
    from app.domain.verification.signature_checks import SignatureStatus
    from app.domain.verification.stored_rows import Row, VerifiedRun
    from app.services.verify.books import VerifyTotals
    from app.services.verify.evidence import Reading
    from app.store import Store

PROCESSES = 2
SPREAD_FROM_TASKS = 5_000
"""Below this one process is done before two have started."""
SIGNATURE_WINDOW_MIN_S = 300
"""The contract's own (C-I.3): what a wider or the same window let in is not held against a narrower one."""


def verify(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or ids of runs. Default: all.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All runs, and what belongs to none.")] = False,
    account: Annotated[str, typer.Option(help="Only the runs of this account.")] = "",
    secret_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Environment variable with retired webhook secrets of the account."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that share the work.", min=1, max=32)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the books again from submit responses, deliveries and polls, and compare them row by row.

    Every difference is named: table, row, column, what stands, what should be, and why. Nothing is changed.
    Ends with 1 when anything differs.
    """
    from app.cli.terminal import show
    from app.views.verify import verify_document

    if run and all_:
        raise typer.BadParameter("give RUN or --all, not both", param_hint="--all")
    settings = settings_for(log_level="warning")
    plan = plan_of(settings, account, secret_env or [])

    async def work(store: "Store") -> None:
        runs, totals = await _verified(store, plan, run or [], account or None, processes)
        document = verify_document(totals, len(runs))
        show(document, as_json=as_json, draw=draw_verified)
        if totals.differences_count:
            raise typer.Exit(FAILED)

    with_store(settings, work)


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """What every process needs to know."""

    settings: "Settings" = field(repr=False)
    secrets: Mapping[str, Sequence[str]] = field(repr=False)
    """By account."""
    window_s: int
    allow_unsigned: bool


def plan_of(settings: "Settings", account: str, names: Sequence[str]) -> VerifyPlan:
    """`names`: variables that hold retired secrets of `account`. Raises UserError for one that is not set."""
    from app.config import DEFAULT_ACCOUNT

    # An account whose key is not configured any more has books all the same.
    secrets = {name: list(configured.webhook_secrets) for name, configured in settings.all_accounts().items()}
    for name in names:
        if not os.environ.get(name):
            raise UserError(
                "no_secret", f"the environment has no {name}", "set it, comma-separated", exit_code=USAGE
            )
        retired = [part.strip() for part in os.environ[name].split(",") if part.strip()]
        secrets.setdefault(account or DEFAULT_ACCOUNT, []).extend(retired)
    window_s = max(settings.signature_window_s, SIGNATURE_WINDOW_MIN_S)
    return VerifyPlan(settings, secrets, window_s, settings.allow_unsigned)


async def _verified(
    store: "Store", plan: VerifyPlan, wanted: Sequence[str], account: str | None, processes: int | None
) -> "tuple[list[VerifiedRun], VerifyTotals]":
    from app.cli.runs.choose import choose_run
    from app.config import DEFAULT_ACCOUNT
    from app.services.verify.books import VerifyTotals, conclude, verify_rest, verify_share
    from app.store.read.verification import open_snapshot

    run_ids = [(await choose_run(store, name)).id for name in wanted]
    totals, reading = VerifyTotals(), reading_of(plan)
    receipts: list[Receipt] = []
    async with open_snapshot(store.db, archive=store.archive) as snapshot:
        runs = await snapshot.runs(account, run_ids)
        spread = processes or min(PROCESSES, os.cpu_count() or 1)
        if sum(run.last_ordinal for run in runs) < SPREAD_FROM_TASKS and not processes:
            spread = 1
        if spread == 1:
            totals.add(await verify_share(snapshot, runs, reading))
        else:
            for share in await _in_processes(plan, runs, spread, await snapshot.export()):
                totals.add(share)
        if not wanted:
            rest = await verify_rest(snapshot, reading, account=account, default_account=DEFAULT_ACCOUNT)
            totals.add(rest)
            # Shares of SQLite each have a snapshot of their own.
            if account is None and (spread == 1 or not store.db.is_sqlite):
                receipts = list(await snapshot.receipts())
    conclude(totals, receipts)
    return runs, totals


async def _in_processes(
    plan: VerifyPlan, runs: "Sequence[VerifiedRun]", spread: int, joined: str | None
) -> "list[VerifyTotals]":
    import asyncio
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    loop = asyncio.get_running_loop()
    # Not forked: a fork would share this process's connections and threads.
    with ProcessPoolExecutor(spread, mp_context=get_context("spawn")) as pool:
        shares = (
            loop.run_in_executor(pool, run_share, plan, list(runs), share, spread, joined)
            for share in range(spread)
        )
        return await asyncio.gather(*shares)


def run_share(
    plan: VerifyPlan, runs: "Sequence[VerifiedRun]", share: int, of: int, joined: str | None
) -> "VerifyTotals":
    """One process's share of the pages; what a process of the pool is started with."""
    import asyncio

    from app.bootstrap import open_store
    from app.services.verify.books import verify_share
    from app.store.read.verification import open_snapshot

    async def work() -> "VerifyTotals":
        store = await open_store(plan.settings, migrated=False)
        try:
            async with open_snapshot(store.db, joined, store.archive) as snapshot:
                return await verify_share(snapshot, runs, reading_of(plan), share=share, shares=of)
        finally:
            await store.close()

    return asyncio.run(work())


def reading_of(plan: VerifyPlan) -> "Reading":
    """How evidence is read: by the parser and the rules that settled it, and with the secrets configured."""
    from app.domain.text import storable_message
    from app.provider.wire import read_report
    from app.services.settle import decide_delivery
    from app.services.verify.evidence import Reading

    return Reading(read_report, decide_delivery, storable_message, signature_checker(plan))


def signature_checker(plan: VerifyPlan) -> "Callable[[str, Row], SignatureStatus]":
    """Checks a stored signature again, as of the time when the delivery came."""
    from app.domain.settlement import Source
    from app.domain.verification.signature_checks import SignatureStatus
    from app.provider.signature import RefusalReason, Verified, verify

    def check(account: str, row: "Row") -> SignatureStatus:
        if row["source"] != Source.DELIVERY or (plan.allow_unsigned and row["signature"] is None):
            return SignatureStatus.NOT_SIGNED
        secrets = plan.secrets.get(account)
        if not secrets:
            return SignatureStatus.NO_SECRET
        if row["body"] is None or row["signature"] is None:
            return SignatureStatus.UNSIGNED
        outcome = verify(
            secrets,
            row["signed_at"],
            row["signature"],
            row["body"],
            row["received_at_ms"] // 1000,
            plan.window_s,
        )
        if isinstance(outcome, Verified):
            return SignatureStatus.VALID
        return SignatureStatus.STALE if outcome.reason is RefusalReason.STALE else SignatureStatus.NO_MATCH

    return check


def draw_verified(output: "Console", document: dict[str, Any]) -> None:
    """Every difference on a line, then the sentence, then the sums."""
    from rich.markup import escape

    from app.cli.terminal import pairs

    for row in document["differences"]:
        place = f"{row['table']} {row['key']}, {row['column']}"
        values = f": stands {row['stands']}, should be {row['should_be']} ({row['why']})"
        output.print(f"[red]{escape(place)}[/red]{escape(values)}")
    unnamed = document["differences_count"] - len(document["differences"])
    if unnamed:
        output.print(f"… and {unnamed} more")
    style = "green" if document["equal"] else "red"
    output.print(f"[{style}]{escape(document['message'])}[/{style}]")
    for name in ("credits", "counts"):
        output.print(f"  {name:<8} {escape(pairs(document[name]))}")


VERIFY_EXAMPLES = examples(
    "tallyhook verify",
    "tallyhook verify monday --json | jq .differences",
    "RETIRED=whsec_… tallyhook verify --secret-env RETIRED",
)
