"""Which colour a state of tasks has, on report and page alike."""

from collections.abc import Mapping

from app.domain.task import TaskState

STATE_COLOURS: Mapping[str, int] = {
    TaskState.COMPLETED: 2,
    TaskState.FAILED: 3,
    TaskState.REJECTED: 1,
    TaskState.EXPIRED: 6,
    TaskState.CANCELLED: 7,
    TaskState.SUBMITTED: 0,
    TaskState.SUBMITTING: 5,
    TaskState.PENDING: 4,
}
"""Of the eight colours of charts; the page's bar has them in this order."""
