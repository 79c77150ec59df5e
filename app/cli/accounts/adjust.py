"""`tallyhook adjust`: corrects the books by one more entry with a reason."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.options import AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.domain.text import agreeing, counted
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from decimal import Decimal

    from app.store import Store
    from app.store.write.adjustments import AdjustedTask


def adjust(
    target: Annotated[
        str, typer.Argument(metavar="TASK|RUN", help="Id of a task; or a run, as in other commands.")
    ],
    credits: Annotated[
        str, typer.Option(help="What the account gains (a refund); negative: what it loses. Not 0.")
    ],
    reason: Annotated[str, typer.Option(help="Why: who agreed to what, and where it can be read.")],
    as_json: AsJson = False,
) -> None:
    """Correct the books of a task or a run by one more entry.

    Nothing that stands is edited: the entry is added beside the ledger, with its reason, and verify reads it.
    Taking one back is another one with the opposite credits. Told twice, it stands twice.
    """
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import draw_line, show
    from app.domain.accounting.adjustment import adjustment_reason
    from app.domain.credits import to_json_number

    amount, text = _amount(credits), _reason(reason)

    async def work(store: "Store") -> None:
        task = await _task(store, target)
        if task is None:
            run = await choose_run(store, target)
            account, run_id, what = run.account, run.id, f"run {run.name}"
        else:
            account, run_id, what = task.account, task.run_id, f"task {task.id}"
        total = await store.adjustments.add_adjustment(
            amount,
            adjustment_reason(amount, text),
            account=account,
            run_id=run_id,
            task_id=task.id if task else None,
            attempt=task.attempt if task else None,
            now_ms=now_ms(),
        )
        whom = f"run {run_id}" if task is None else what
        done(
            f"{counted(to_json_number(amount), 'credit')} {agreeing(amount)} "
            f"noted for {whom}; told again, they would stand twice"
        )
        document = {
            "account": account,
            "run_id": run_id,
            "task_id": task.id if task else None,
            "credits": to_json_number(amount),
            "reason": text,
            "adjusted_in_all": to_json_number(total),
            "message": f"{counted(to_json_number(amount), 'credit')} noted for {what} of account {account}; "
            f"its adjustments are {to_json_number(total)} in all.",
        }
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


async def _task(store: "Store", target: str) -> "AdjustedTask | None":
    try:
        task_id = str(UUID(target))
    except ValueError:
        return None
    return await store.adjustments.find_task(task_id)


def _amount(text: str) -> "Decimal":
    from app.domain.accounting.adjustment import parse_adjustment
    from app.domain.credits import CreditsError

    try:
        return parse_adjustment(text)
    except CreditsError as error:
        raise UserError("bad_credits", f"--credits {error}", "such as 5 or -2.5", exit_code=USAGE) from error


def _reason(text: str) -> str:
    from app.domain.accounting.adjustment import REASON_CHARS_MAX

    reason = " ".join(text.split())
    if not reason:
        raise UserError("no_reason", "--reason is empty", "say why the books are corrected", exit_code=USAGE)
    if len(reason) > REASON_CHARS_MAX:
        remedy = f"{REASON_CHARS_MAX} characters at most; name where the rest can be read"
        raise UserError("long_reason", f"--reason has {len(reason)} characters", remedy, exit_code=USAGE)
    return reason


ADJUST_EXAMPLES = examples(
    'tallyhook adjust monday --credits 40 --reason "refund agreed in ticket 123"',
    'tallyhook adjust 0192f0c1-… --credits=-5 --reason "charged after all, ticket 124"',
)
