"""The command's options in, a follower out; signals end it in order."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.cli.options import settings_for
from app.domain.text import counted
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from app.cli.follow.follower import Follower
    from app.cli.follow.manifest import Selection
    from app.config import Settings
    from app.objects import Objects
    from app.store import Store

EVERY_MIN_MS = 1_000
STOP_S = 25.0
"""After a signal: for storing what was read, before an orchestrator's usual 30 s are over. What is cut off is
stored by the next start."""


def follow_results(
    to: str, *, run: str | None, every: str, once: bool, accounts: Sequence[str], as_json: bool
) -> None:
    """Add results to a destination until a signal ends it; `once`: those that are there. Raises UserError."""
    from app.cli.runs.commands import with_store
    from app.cli.terminal import draw_line, show
    from app.files.export import refuse_without_pyarrow

    refuse_without_pyarrow()
    every_ms = _every(every)
    settings = settings_for()
    _refuse_unknown_accounts(settings, accounts)
    objects = _objects(settings, to)

    async def work(store: "Store") -> None:
        from app.bootstrap import CLOCK, jitter, now_ms
        from app.cli.follow.destination import Destination
        from app.cli.follow.follower import Follower

        selection = await _selection(store, run, accounts)
        destination = Destination(objects, selection, clock=now_ms)
        follower = Follower(store.settled, destination, selection, every_s=every_ms / 1000, jitter=jitter)
        clock = asyncio.create_task(CLOCK.keep(store.health.database_ms), name="clock")
        try:
            # Nothing more comes of a run that is over.
            await _until_stopped(follower, once=once or await _is_over(store, selection.run_id))
        finally:
            clock.cancel()
        followed = follower.followed
        document = {
            "destination": objects.display,
            "rows": followed.rows,
            "files": followed.parts,
            "last_seq": followed.last_seq,
            "message": f"{counted(followed.rows, 'result')} in "
            f"{counted(followed.parts, 'file')} added to {objects.display}, "
            f"which has all up to number {followed.last_seq}",
        }
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings, work)


async def _until_stopped(follower: "Follower", *, once: bool) -> None:
    """Run it; a signal lets it store what it has read, a second one ends the process at once."""
    running = asyncio.create_task(follower.run(once=once), name="follower")
    stopped = asyncio.Event()
    with _signals(stopped):
        stopping = asyncio.create_task(stopped.wait(), name="signal")
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            follower.stop()
            _, late = await asyncio.wait({running}, timeout=STOP_S)
        finally:
            stopping.cancel()
        if late:
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@contextlib.contextmanager
def _signals(stopped: asyncio.Event) -> Iterator[None]:
    from app.stop_signals import ending_signals

    loop = asyncio.get_running_loop()
    numbers = ending_signals()

    def stop() -> None:
        stopped.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _is_over(store: "Store", run_id: str | None) -> bool:
    from app.cli.runs.choose import choose_run
    from app.views.runs import is_finished

    if run_id is None:
        return False
    return is_finished(await choose_run(store, run_id), await store.queries.progress(run_id))


async def _selection(store: "Store", run: str | None, accounts: Sequence[str]) -> "Selection":
    from app.cli.follow.manifest import Selection
    from app.cli.runs.choose import choose_run

    run_id = None if run is None else (await choose_run(store, run)).id
    return Selection(run_id, sorted(set(accounts)))


def _every(text: str) -> int:
    from app.run_options import duration_option

    every_ms = duration_option("--every", text) or 0
    if every_ms < EVERY_MIN_MS:
        raise UserError("bad_option", f"--every {text!r} is less than a second", exit_code=USAGE)
    return every_ms


def _refuse_unknown_accounts(settings: "Settings", accounts: Sequence[str]) -> None:
    known = settings.all_accounts()
    for account in accounts:
        if account not in known:
            raise UserError(
                "account_unknown",
                f"there is no account {account!r}",
                "give one of these, or add it to TALLYHOOK_ACCOUNTS",
                details=list(known),
                exit_code=USAGE,
            )


def _objects(settings: "Settings", to: str) -> "Objects":
    from app.address import AddressError, read_objects_address
    from app.objects import open_objects
    from app.ports import ObjectsRefused

    try:
        return open_objects(read_objects_address(to), ca_file=settings.ca_file)
    except AddressError as error:
        raise UserError("bad_option", f"--follow {error}", exit_code=USAGE) from error
    except ObjectsRefused as error:
        raise UserError("destination_refused", error.message, error.remedy, exit_code=USAGE) from error
