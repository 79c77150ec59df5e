"""What work is charged: estimate, product clusters, changed prices, wrong charges (C-E.4, C-E.5, C-M).

The account is debited by `Organization.charge`; nothing here knows a balance.
"""

from typing import Any

from app.emulator.billing.organizations import ApiKey
from app.emulator.billing.pricing import PriceList, clusters_price, estimate
from app.emulator.engine import faults
from app.emulator.engine.tasks import Status, Task


def price_of_request(key: ApiKey, prices: PriceList, task_type: str, payload: dict[str, Any]) -> int:
    """Credits to charge for a valid request, async (C-E.1); 0 with a key that is not billed."""
    return 0 if key.free else estimate(prices, task_type, payload)


def price_of_sync_call(key: ApiKey, prices: PriceList, task_type: str, payload: dict[str, Any]) -> int:
    """The same for a sync call, its surcharge included (C-E.2)."""
    return 0 if key.free else estimate(prices, task_type, payload) + prices.sync_surcharge


def charge_of_completed(task: Task, prices: PriceList, *, at_submission: bool) -> int:
    """The estimate, again at today's prices if they changed since, and the clusters returned (C-E.5)."""
    if task.free:
        return 0
    right = task.estimate
    if prices is not task.prices and not at_submission:
        right = estimate(prices, task.task_type, task.payload or {})
    return right + clusters_price(prices, task.clusters)


def charge_with_faults(task: Task, right: int, fault_seed: int) -> int:
    """The right charge, or the wrong one of the task's fate, which its book line then names."""
    started = task.started_s is not None  # a task refused at pick-up is never charged, rightly or wrongly
    if not (task.fate.wrong_charge and started) or task.free:
        return right
    include: dict[str, Any] = (task.payload or {}).get("include") or {}
    charged, kind = faults.wrong_charge(
        fault_seed,
        task.number,
        right,
        task.estimate,
        completed=task.status is Status.COMPLETED,
        variable=task.task_type == "AIMODE" and include.get("expandProducts") is True,
    )
    task.faults.append(kind)
    return charged
