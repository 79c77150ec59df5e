"""The receiver's limits in one place, so that its parts and their tests need no Settings."""

from dataclasses import dataclass

from app.config import ConfigError, Settings


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Bounds of the receiver; the settings of the same names (app/config.py) say how they were worked out."""

    body_bytes_max: int
    body_read_timeout_s: float
    deliveries_waiting_max: int
    waiting_bytes_max: int
    commit_size_max: int
    commit_timeout_s: float
    signature_window_s: int
    wake_delay_s: float
    due_after_s: float
    """When the sweep looks at a delivery that was not settled."""
    wake_size: int = 500
    """Ids of one wake: a job costs 16 to 29 Redis commands, whatever it carries. The worker settles them in
    transactions of settle_size."""
    wake_timeout_s: float = 5.0
    """Above redis_timeout_s: for when the queue's own timeouts fail."""
    wakes_pending_max: int = 20_000
    """Ids that wait for a slow Redis: 20,000 of 90 bytes are 2 MB. Beyond it the sweep finds the oldest."""
    flush_timeout_s: float = 5.0
    """For what is queued when the process ends; for the commit and for the wakes each."""

    def __post_init__(self) -> None:
        if self.waiting_bytes_max < self.body_bytes_max:
            raise ConfigError(
                "TALLYHOOK_WAITING_BYTES_MAX is below TALLYHOOK_BODY_BYTES_MAX, so the largest allowed "
                "delivery could never be taken: raise the one or lower the other"
            )


def limits_from(settings: Settings) -> WebLimits:
    """The limits as the environment sets them."""
    return WebLimits(
        body_bytes_max=settings.body_bytes_max,
        body_read_timeout_s=settings.body_read_timeout_s,
        deliveries_waiting_max=settings.deliveries_waiting_max,
        waiting_bytes_max=settings.waiting_bytes_max,
        commit_size_max=settings.commit_size_max,
        commit_timeout_s=settings.commit_timeout_s,
        signature_window_s=settings.signature_window_s,
        wake_delay_s=settings.wake_delay_s,
        due_after_s=settings.sweep_after_s,
    )
