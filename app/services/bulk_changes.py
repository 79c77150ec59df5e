"""Bulk changes: something done to all tasks, or runs, that match a filter. Tried out, which says how many and
what it costs; confirmed with those figures; then carried out a chunk at a time, by whoever has the time.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.access import ActionRow
from app.domain.bulk_change import Aim, BulkChange, ChangeState, Figures, Place, Verb, refuse_unfit
from app.domain.task import new_id
from app.domain.task_filter import FilterError, TaskFilter, filter_text
from app.ports import Clock
from app.services.access import Asker

if TYPE_CHECKING:
    from app.store import Store


class NotConfirmed(Exception):  # noqa: N818 - what is asked for is not what was tried out; nothing has failed
    """A bulk change is not begun. `code` is for programs; the text says what to do."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


async def propose(
    store: "Store", verb: Verb, wanted: TaskFilter, asker: Asker, *, now_ms: int, even_if_held: bool = False
) -> BulkChange:
    """Try out what a bulk change would do, and keep it to be confirmed. `wanted` names its run by id. Raises
    FilterError for a filter that the verb can do nothing with, or a run that there is not."""
    refuse_unfit(verb, wanted)
    if wanted.run is not None and await store.run_pages.run_with_id(wanted.run, asker.account) is None:
        raise FilterError("run", "there is no such run", "name one that runs or GET /v1/runs lists")
    change_id = new_id(now_ms)
    aim = Aim(verb, wanted, even_if_held and verb is Verb.RETRY, asker.account, change_id)
    change = BulkChange(
        id=change_id,
        created_at_ms=now_ms,
        verb=verb,
        filter=filter_text(wanted),
        even_if_held=aim.even_if_held,
        account=asker.account,
        actor=asker.name,
        token_id=asker.token_id,
        state=ChangeState.PROPOSED,
        proposed=await _figures(store, aim),
        done=Figures(),
        place=Place(),
        confirmed_at_ms=None,
        finished_at_ms=None,
        reason=None,
    )
    await store.bulk_changes.propose(change)
    return change


async def confirm(
    store: "Store",
    change: BulkChange,
    *,
    matched: int,
    credits: Decimal,
    filter: str | None = None,
    now_ms: int,
    action: ActionRow | None = None,
) -> BulkChange:
    """Let a proposal be carried out, by who repeats its figures; one that was confirmed already stays as it
    is. Raises NotConfirmed, also when more matches by now."""
    if filter is not None and filter != change.filter:
        raise NotConfirmed("other_filter", "the filter is another one than was tried out: try it out anew")
    if (matched, credits) != (change.proposed.matched, change.proposed.credits):
        raise NotConfirmed("other_figures", "these are not the figures that were tried out: look at it again")
    if change.state is ChangeState.PROPOSED:
        await _refuse_stale(store, change, now_ms)
        await store.bulk_changes.confirm_if_proposed(change.id, now_ms, action)
    found = await store.bulk_changes.find(change.id)
    if found is None or found.state is ChangeState.PROPOSED:
        raise NotConfirmed("lapsed", "it was tried out too long ago: try it out anew")
    return found


async def stop(
    store: "Store", change: BulkChange, *, now_ms: int, action: ActionRow | None = None
) -> BulkChange:
    """Do no more of a bulk change that runs; what was done stays. Raises NotConfirmed for one that was never
    begun, or has ended."""
    if not await store.bulk_changes.stop_if_running(change.id, now_ms, action):
        raise NotConfirmed("not_running", f"it is {change.state}, not running: there is nothing to stop")
    return await store.bulk_changes.find(change.id) or change


async def carry_out(
    store: "Store",
    change_id: str,
    *,
    clock: Clock,
    is_stopping: Callable[[], bool] = lambda: False,
    on_chunk: Callable[[BulkChange], None] = lambda _: None,
) -> BulkChange | None:
    """Do what is left of a bulk change, as it stands after its last chunk; None: nothing was. Several may at
    once: each chunk is one's."""
    last = None
    while not is_stopping():
        change = await store.bulk_changes.advance(change_id, clock())
        if change is None:
            break
        last = change
        on_chunk(change)
    return last


async def _figures(store: "Store", aim: Aim) -> Figures:
    found, place = Figures(), Place()
    while True:
        more, following = await store.bulk_changes.figures_after(aim, place)
        found = found.plus(more)
        if following is None:
            return found
        place = following


async def _refuse_stale(store: "Store", change: BulkChange, now_ms: int) -> None:
    if now_ms >= change.lapses_at_ms:
        raise NotConfirmed("lapsed", "it was tried out too long ago: try it out anew")
    if not change.proposed.matched:
        raise NotConfirmed("nothing_matches", "nothing matches: there is nothing to change")
    now = await _figures(store, change.aim)
    is_dearer = change.verb is Verb.RETRY and now.credits > change.proposed.credits
    if now.matched > change.proposed.matched or is_dearer:
        before = change.proposed.matched
        what = f"{now.matched:,} match by now, {before:,} when it was tried out: try it out anew"
        raise NotConfirmed("grown", what)
