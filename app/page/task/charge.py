"""How the charge of a task comes about: the parts of its price, what was promised, what was charged. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from app.api.native.tasks import TaskDetail
from app.domain.pricing import parts, price_list
from app.domain.time_format import iso_day

_PARTS = {
    "addons": "paid extras",
    "state": "a state of the country",
    "pages": "more pages",
    "overview": "the AI overview",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the sum. None: not known."""

    what: str
    credits: Decimal | None
    is_sum: bool = False
    why: str = ""


def charge_lines(task: TaskDetail, stored_at_ms: int) -> list[Line]:
    """From the price list to what was charged; each sum under what it is the sum of."""
    return [*_price(task, stored_at_ms), *_charged(task)]


def _price(task: TaskDetail, stored_at_ms: int) -> Iterator[Line]:
    prices = price_list(iso_day(task.first_sent_at or stored_at_ms))
    total = Decimal(0)
    for part in parts(task.engine, task.payload, prices):
        total += part.credits
        yield Line(_PARTS.get(part.what, f"{part.what}, its base price"), part.credits)
    estimated = task.credits.estimated
    if estimated != total:
        yield Line("by other prices when it was stored", estimated - total)
    yield Line("our estimate", estimated, is_sum=True, why=f"the price list of {prices.since}")


def _charged(task: TaskDetail) -> Iterator[Line]:
    promised, charged = task.credits.to_charge, task.credits.charged
    if promised is not None and promised != task.credits.estimated:
        yield Line("the provider asks for more or less", promised - task.credits.estimated)
    if task.reused_from is not None:
        yield Line("charged", Decimal(0), is_sum=True, why="another task's result answers it, for nothing")
        return
    yield Line("promised at acceptance", promised, is_sum=True, why="creditsToCharge")
    if charged is not None and promised is not None and charged != promised:
        yield Line("added or left off at completion", charged - promised, why=_why(task))
    yield Line("charged", charged, is_sum=True, why="creditsCharged, as its report said")


def _why(task: TaskDetail) -> str:
    closing = [e.reason for e in task.ledger if e.kind != "hold" and e.attempt == task.attempt and e.reason]
    if closing:
        return closing[-1].replace("_", " ")
    return (task.verdict or "").replace("_", " ")
