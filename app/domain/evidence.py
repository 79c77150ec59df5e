"""What is kept and shown as proof: of a delivery that was acknowledged and lost, of a charge in dispute.

Pure: data, and the documents made of it. May not do I/O, read a clock or log.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The provider says that it had a 2xx for a task's webhook (C-G.4)."""

    provider_task_id: str
    at: str | None
    """`deliveredAt` as sent: ISO 8601, the provider's clock."""
    url: str | None
    """Where it was sent, without what may be secret in it."""
