"""What the emulator did, task by task: the expected results that other ledgers are compared with."""

import itertools
from dataclasses import asdict
from typing import Any

from app.emulator.billing.organizations import Organization
from app.emulator.engine.clock import iso
from app.emulator.engine.tasks import Task


def _iso_or_none(time_s: float | None) -> str | None:
    return None if time_s is None else iso(time_s)


def line(task: Task) -> dict[str, Any]:
    """One task's line; `creditsCharged` is null until the task has ended."""
    return {
        "id": task.id,
        "idempotencyKey": task.idempotency_key,
        "taskType": task.task_type,
        "status": "CLEARED" if task.cleared else task.status.value,
        "creditsToCharge": task.estimate,
        "creditsCharged": task.charged,
        "clusters": task.clusters,
        "createdAt": task.created_iso,
        "completedAt": _iso_or_none(task.completed_s),
        "faults": task.faults,
        "responseLost": task.response_lost,
        "deliveries": {"sent": task.sent, "acked": task.acked},
        "firstAckAt": _iso_or_none(task.first_ack_s),
        "terminalPolls": task.terminal_polls,
        "firstTerminalPollAt": _iso_or_none(task.first_terminal_poll_s),
    }


def books(
    organization: Organization, now_s: float, *, with_tasks: bool, with_cycles: bool = True
) -> dict[str, Any]:
    """The statement of one organization; without its tasks it is cheap enough to poll. `opening` is
    everything granted so far less what expired, so that opening - charged = remaining in any cycle; where
    organizations share an account the three are the account's, and `chargedHere` is this organization's
    part."""
    account, totals = organization.account, organization.totals
    statement: dict[str, Any] = {
        "organization": organization.name,
        "plan": account.plan.name,
        "account": account.name,
        "now": iso(now_s),
        "opening": account.balance + account.charged_ever,
        "charged": account.charged_ever,
        "chargedHere": organization.charged,
        "remaining": account.balance,
        "slots": {"used": organization.slots_used, "max": organization.slots},
        "totals": asdict(totals),
        "pending_deliveries": organization.pending_deliveries,
        "active_tasks": organization.queued_tasks + organization.processing,
    }
    if with_cycles:
        statement["cycles"] = [cycle.as_json() for cycle in (*account.closed, account.cycle)]
    if with_tasks:
        statement["tasks"] = [
            line(task) for task in itertools.chain(organization.archive, organization.tasks.values())
        ]
    return statement
