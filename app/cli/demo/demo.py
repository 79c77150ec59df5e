"""The whole pipeline on one machine, against a provider that misbehaves on purpose; then the books are
compared. Everything runs as a process of its own, as in production.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp

from app.bootstrap import now_ms
from app.cli.demo.expected import charge_differences, differences, emulator_totals
from app.cli.demo.stack import (
    Emulator,
    directory_for,
    emulator_command,
    environment,
    failed,
    ready,
    settings_of,
)
from app.cli.runs.progress import Seen, Show, shown_progress
from app.cli.runs.submit_file import submit_file
from app.cli.runs.watch import POLL_S
from app.cli.store_access import opened_store
from app.cli.terminal import error_console
from app.config import Settings
from app.domain.access import Scope
from app.domain.credits import to_json_number
from app.domain.pricing import PRICE_LISTS
from app.domain.text import counted
from app.domain.time_format import iso_day
from app.domain.verdicts import Verdict
from app.errors import USAGE, UserError
from app.local.embedded import embedded_valkey
from app.local.processes import Processes, own_command
from app.prompts.reader import Defaults
from app.services.access import create_token
from app.services.load import NewRun
from app.store import Store
from app.store.read.runs import RunReport, RunRow
from app.views.runs import Document

PROMPTS = Path(__file__).parents[3] / "examples" / "prompts.csv"
POLL_AFTER_S = 10.0
"""A task lives 4 s at most: waiting for a slot, five internal attempts if it fails, its delivery. So whatever
is polled after this has lost its delivery, as a rule."""
TASKS_PER_S = 100
"""Above 1,000 tasks a task may live longer: all of them are done in this time on a slow machine."""
DEADLINE_S = 90.0
DIFFERENCES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Demo:
    """What to run."""

    prompts: Path | None
    """None: the examples."""
    seed: int
    directory: Path | None
    """A new one for database, queue and logs, which stays; None: a temporary one, removed at the end."""
    look: Callable[[Document], None] | None = None
    """Called with the report once the page is up; then everything runs on until SIGINT or SIGTERM. None: all
    ends with the report."""


async def run_demo(demo: Demo) -> Document:
    """Run it; the report, with `agree`. Raises UserError when it could not be run to its end."""
    prompts = demo.prompts or PROMPTS
    if not prompts.is_file():
        raise UserError(
            "no_examples", f"there is no {prompts}", "give a file with --prompts", exit_code=USAGE
        )
    started = time.monotonic()
    with _ended_by_sigterm(), directory_for(demo.directory) as directory:
        return await _run(demo, prompts, directory, started)


async def _run(demo: Demo, prompts: Path, directory: Path, started: float) -> Document:
    say = error_console().print
    say("Starting Valkey, the emulator, web …")
    settings = settings_of(directory)
    # In this order, so that at the end the processes are stopped before the Valkey that they use.
    with embedded_valkey(settings) as redis_url, Processes(directory / "logs") as processes:
        settings = settings.model_copy(update={"redis_url": redis_url})
        async with opened_store(settings) as store, aiohttp.ClientSession() as http:
            emulator_process = processes.spawn("emulator", emulator_command(demo.seed), env=environment())
            web = processes.spawn(
                "web", own_command("app.cli.main", "web", "--json"), env=environment(settings)
            )
            emulator = Emulator(http, (await ready(emulator_process))["url"])
            web_url = (await ready(web))["url"]
            new = NewRun(prompts.name, prompts.name, strict=True, price_day=newest_price_day())
            submitted = await submit_file(store, settings, prompts, Defaults(), new)
            say(f"{counted(submitted['tasks'], 'prompt')} of {prompts.name} stored; starting the worker …")
            poll_after_s = max(POLL_AFTER_S, submitted["tasks"] / TASKS_PER_S)
            processes.spawn(
                "worker",
                own_command("workers"),
                env=environment(
                    settings,
                    CLORO_BASE_URL=emulator.url,
                    PUBLIC_URL=web_url,
                    TALLYHOOK_POLL_AFTER_S=str(poll_after_s),
                    TALLYHOOK_POLL_EVERY_S="2",
                    TALLYHOOK_SWEEP_EVERY_S="0.5",
                    TALLYHOOK_SWEEP_AFTER_S="3",
                ),
            )
            run = (await store.queries.find_runs(submitted["run"]["id"]))[0]
            await _settled(store, run, emulator, processes, DEADLINE_S + 2 * poll_after_s)
            document = await compare(store, run, await emulator.books())
            document |= {"seconds": round(time.monotonic() - started, 1)}
            if demo.look is not None:
                await _stay(demo.look, document, store, settings, processes)
            return document


async def _stay(
    look: Callable[[Document], None],
    document: Document,
    store: Store,
    settings: Settings,
    processes: Processes,
) -> None:
    """Show the page, and leave everything up until somebody ends it."""
    api = own_command("app.cli.main", "api", "--port", "0", "--json")
    url = (await ready(processes.spawn("api", api, env=environment(settings))))["url"]
    made = await create_token(store, "demo", Scope.OPERATE, None, now_ms=now_ms())
    look(document | {"page": url, "token": made[1] if made else None})
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, ended.set)
    try:
        await ended.wait()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _settled(
    store: Store, run: RunRow, emulator: "Emulator", processes: Processes, timeout_s: float
) -> None:
    """Wait, with a live bar, until nothing is under way on either side. Raises UserError."""
    began = time.monotonic()
    until = began + timeout_s
    with shown_progress(error_console(), run.name) as show:
        while not await _is_quiet(store, run, emulator, show, began):
            dead = processes.dead()
            if dead is not None:
                raise failed(f"{dead.name} ended by itself with {dead.exit_code}", processes)
            run = (await store.queries.find_runs(run.id))[0]
            if run.reason:
                raise failed(f"the run is {run.state}: {run.reason}", processes)
            if time.monotonic() > until:
                raise failed(f"the run is not finished after {timeout_s:.0f} s", processes)
            await asyncio.sleep(POLL_S)


async def _is_quiet(store: Store, run: RunRow, emulator: "Emulator", show: Show, began: float) -> bool:
    """No task or delivery with the emulator, then none with us: asked in this order, since what the emulator
    has delivered by then is in our inbox."""
    emulator_quiet = await emulator.is_quiet()
    progress = await store.queries.progress(run.id)
    show(Seen(time.monotonic() - began, now_ms(), run.state, run.reason, progress, ()))
    return (
        emulator_quiet
        and progress.open == 0
        and progress.held == 0
        and progress.verdicts.get(Verdict.UNKNOWN, 0) == 0
        and await store.queries.waiting_count() == 0
    )


async def compare(store: Store, run: RunRow, books: Document) -> Document:
    """What was found, what the emulator says, and every difference."""
    report = await store.reports.report(run)
    found = found_side(report, unmatched=await store.queries.stray_count())
    expected = emulator_totals(books["tasks"], swept=found["swept"], duplicates=found["duplicates"])
    keys = differences(found, expected)
    tasks = charge_differences(await store.reports.charges(run.id), books["tasks"])
    drift = Decimal(str(books["opening"])) - Decimal(str(books["remaining"])) - report.posted
    return {
        **found,
        "ledger": {name: to_json_number(getattr(report, name)) for name in ("held", "posted", "voided")},
        "drift": to_json_number(drift),
        "emulator": expected,
        "agree": not keys and not tasks and drift == 0 and report.held == 0,
        "differences": {"keys": keys, "tasks": tasks[:DIFFERENCES_SHOWN], "tasks_count": len(tasks)},
    }


def found_side(report: RunReport, *, unmatched: int) -> Document:
    """Our side of the report, from our books alone."""
    states = report.progress.states
    verdicts = {verdict.value: report.verdicts.get(verdict, 0) for verdict in Verdict}
    return {
        "tasks": report.progress.tasks,
        **{state: states.get(state, 0) for state in ("completed", "failed", "rejected", "expired")},
        "duplicates": report.duplicates,
        "swept": report.swept,
        "recovered_submits": report.recovered_submits,
        "verdicts": verdicts | {Verdict.UNMATCHED.value: unmatched},
        "credits_charged": to_json_number(report.progress.charged),
    }


def newest_price_day() -> str:
    """Today, but not before the list that the emulator goes by: a wrong clock here is no repricing."""
    return max(iso_day(now_ms()), PRICE_LISTS[-1].since)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo in order, as Ctrl-C does; the exit code is the shell's, 143."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only a coroutine gets here
    interrupted = False

    def end() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
