"""What the receiver counts, on the registry of its process."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.provider.signature import RefusalReason

ALERTED = (*RefusalReason, "unknown_account")
"""Reasons whose growth is watched: each is shown from 0 on, or the first burst would be no growth."""
COMMIT_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COMMIT_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """One counter, gauge or histogram each; the help texts say what they mean."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._answers = Counter(
            "tallyhook_deliveries",
            "Deliveries by the HTTP status they were answered with",
            ["answer"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "tallyhook_deliveries_refused",
            "Deliveries that were not stored, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.commit_size = Histogram(
            "tallyhook_inbox_commit_deliveries",
            "Deliveries that shared one commit",
            buckets=COMMIT_SIZES,
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "tallyhook_inbox_commit_seconds",
            "Duration of one commit of deliveries",
            buckets=COMMIT_SECONDS,
            registry=self.registry,
        )
        self.commit_failures = Counter(
            "tallyhook_inbox_commit_failures",
            "Commits that failed or took too long; none was acknowledged",
            registry=self.registry,
        )
        self.repeats = Counter(
            "tallyhook_deliveries_repeated",
            "Deliveries that came again as they were; they are only counted",
            registry=self.registry,
        )
        self.wake_failures = Counter(
            "tallyhook_wake_failures",
            "Deliveries whose wake the queue did not take; the sweep finds them",
            registry=self.registry,
        )
        self.wakes_dropped = Counter(
            "tallyhook_wakes_dropped",
            "Wakes given up because too many waited; the sweep finds them",
            registry=self.registry,
        )
        self.old_secret = Counter(
            "tallyhook_deliveries_old_secret",
            "Deliveries signed with another secret than the first",
            registry=self.registry,
        )
        self.connections_cut = Gauge(
            "tallyhook_connections_cut", "Connections ended to make room", registry=self.registry
        )
        self.refused: dict[str, int] = {}
        """By reason, since they were last stored (presence.py)."""
        # Labelled counters are kept: looking a label up costs more than counting.
        self._labelled: dict[tuple[str, str], Counter] = {}
        for reason in ALERTED:
            self._labelled_counter(self._refusals, "reason", str(reason))

    def count_answer(self, status: int) -> None:
        """One delivery was answered."""
        self._labelled_counter(self._answers, "answer", str(status)).inc()

    def count_refusal(self, reason: str) -> None:
        """One delivery was not stored. `reason` is one of a closed set, never something a stranger sent."""
        self._labelled_counter(self._refusals, "reason", reason).inc()
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that calls `value` whenever it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def _labelled_counter(self, counter: Counter, label: str, value: str) -> Counter:
        child = self._labelled.get((label, value))
        if child is None:
            child = self._labelled[label, value] = counter.labels(value)
        return child
