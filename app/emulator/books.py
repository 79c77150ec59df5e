"""What the emulator did, task by task: the witness that other ledgers are compared with."""

from __future__ import annotations

import itertools
from typing import Any

from .clock import iso
from .organizations import Organization
from .tasks import Task


def _moment(moment_s: float | None) -> str | None:
    return None if moment_s is None else iso(moment_s)


def line(task: Task) -> dict[str, Any]:
    """One task's line; `creditsCharged` is null until the task has ended."""
    return {
        "id": task.id,
        "idempotencyKey": task.idempotency_key,
        "taskType": task.task_type,
        "status": task.status.value,
        "creditsToCharge": task.estimate,
        "creditsCharged": task.charged,
        "clusters": task.clusters,
        "createdAt": task.created_iso,
        "completedAt": _moment(task.completed_s),
        "faults": task.faults,
        "responseLost": task.response_lost,
        "deliveries": {"sent": task.sent, "acked": task.acked},
        "firstAckAt": _moment(task.first_ack_s),
        "terminalPolls": task.terminal_polls,
        "firstTerminalPollAt": _moment(task.first_terminal_poll_s),
    }


def books(organization: Organization, now_s: float, *, with_tasks: bool) -> dict[str, Any]:
    """The statement of one organization; without its tasks it is cheap enough to poll."""
    account, totals = organization.account, organization.totals
    statement: dict[str, Any] = {
        "organization": organization.name,
        "plan": account.plan.name,
        "now": iso(now_s),
        "opening": account.opening,
        "charged": account.charged,
        "remaining": account.balance,
        "totals": {
            "tasks": totals.tasks,
            "completed": totals.completed,
            "failed": totals.failed,
            "cleared": totals.cleared,
            "conflicts": totals.conflicts,
            "responses_lost": totals.responses_lost,
            "deliveries_sent": totals.deliveries_sent,
            "deliveries_acked": totals.deliveries_acked,
            "deliveries_given_up": totals.deliveries_given_up,
            "deliveries_dropped": totals.deliveries_dropped,
            "sync_completed": totals.sync_completed,
            "sync_failed": totals.sync_failed,
        },
        "pending_deliveries": organization.pending_deliveries,
        "active_tasks": organization.queued_tasks + organization.processing,
    }
    if with_tasks:
        statement["tasks"] = [
            line(task) for task in itertools.chain(organization.archive, organization.tasks.values())
        ]
    return statement
