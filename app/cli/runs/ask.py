"""The command ask: one prompt, one answer now."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import Account, AsJson, Include, examples, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.errors import FAILED, USAGE, UserError

if TYPE_CHECKING:
    from app.config import Settings
    from app.services.sync_call import SyncRequest, SyncResult
    from app.store import Store

TIMEOUT_S = 320.0
"""The provider tries for 300 s at most and then finishes what it has begun (C-H)."""
TIMEOUT_MAX_S = 3_600.0
SLOT_WAIT_S = 60.0
SLOT_WAIT_MAX_S = 86_400.0


def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask, or to search for.")],
    engine: Annotated[str, typer.Option(help="Such as chatgpt, gemini, google or google/news.")],
    country: Annotated[str, typer.Option(help="Where to ask from, such as US.")],
    include: Include = None,
    state: Annotated[str, typer.Option(help="US state, such as CA; costs extra.")] = "",
    account: Account = "default",
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the answer.", min=1, max=TIMEOUT_MAX_S)
    ] = TIMEOUT_S,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for a free slot.", min=0, max=SLOT_WAIT_MAX_S)
    ] = SLOT_WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Ask one prompt and wait for its answer.

    Costs 2 credits more than the same prompt in a run, and is in the same books, as a run of one task. While
    all slots of the account are in use it waits; a call that may have been billed is never repeated. Do not
    interrupt it to save credits: the provider may go on and bill it.
    """
    from app.cli.runs.choose import choose_run
    from app.cli.runs.draw import draw_asked
    from app.cli.terminal import show
    from app.run_options import refuse_unknown_account
    from app.views.sync_call import sync_call_document

    settings = settings_for(log_level="warning")
    refuse_unknown_account(settings, account)
    asked_for = question_of(prompt, engine, country, include or [], state, account)

    async def work(store: "Store") -> None:
        asked = await asked_now(store, settings, asked_for, timeout_s=timeout, wait_s=wait)
        (task,) = [row async for row in store.exports.export(asked.run_id)]
        books = await store.reports.report(await choose_run(store, asked.run_id))
        document = sync_call_document(task, books, asked, asked_for.spec.task_type)
        show(document, as_json=as_json, draw=draw_asked)
        if document["state"] != "completed":
            raise typer.Exit(FAILED)

    with_store(settings, work)


def question_of(
    prompt: str, engine: str, country: str, include: list[str], state: str, account: str
) -> "SyncRequest":
    """What was asked for, checked and priced. Raises UserError."""
    import json

    from app.bootstrap import now_ms
    from app.cli.runs.submit_file import default_name
    from app.domain.pricing import sync_estimate
    from app.domain.task import TaskSpec
    from app.domain.time_format import iso_day
    from app.prompts.record import Defaults, read_record, split_include
    from app.services.sync_call import SyncRequest

    cells = {"prompt": prompt, "task_type": engine, "country": country, "state": state}
    names = "|".join(name for text in include for name in split_include(text))
    spec = read_record(1, cells | {"include": names}, Defaults())
    if not isinstance(spec, TaskSpec):
        problems = [f"{p.field}: {p.problem}; {p.remedy}" for p in spec]
        raise UserError("bad_option", problems[0], details=problems[1:], exit_code=USAGE)
    now = now_ms()
    return SyncRequest(
        spec,
        json.dumps(spec.payload, ensure_ascii=False),
        sync_estimate(spec.task_type, spec.payload, iso_day(now)),
        default_name(None, now).replace("stdin", "ask"),
        account,
    )


async def asked_now(
    store: "Store", settings: "Settings", question: "SyncRequest", *, timeout_s: float, wait_s: float
) -> "SyncResult":
    """Ask, and have the books hold what came of it."""
    from app.bootstrap import jitter, now_ms, open_sync
    from app.local.embedded import running_valkey
    from app.provider.sync import encode_sync_report
    from app.provider.wire import read_report
    from app.services.settle import settle
    from app.services.sync_call import ask

    provider = open_sync(settings, question.account, timeout_s=timeout_s, redis_url=running_valkey(settings))
    try:
        return await ask(
            store,
            provider,
            encode_sync_report,
            lambda ids: settle(store, read_report, ids, clock=now_ms, unmatched_ms=0),
            question,
            limits=settings,
            slot_wait_s=wait_s,
            clock=now_ms,
            jitter=jitter,
            opened=_opened,
        )
    finally:
        await provider.close()


def _opened(run_id: str) -> None:
    done(f"run {run_id} has asked, and may be billed; tallyhook export {run_id} shows what came of it")


ASK_EXAMPLES = examples(
    'tallyhook ask "Which CRM suits a small firm?" --engine chatgpt --country US',
    'tallyhook ask "crm for small firms" --engine google --country DE --include aioverview --json',
)
