"""What a worker counts, on the registry of its process. Each process counts what it does itself; whoever
scrapes adds them up."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.domain.notices.notice import Answered
from app.services.settle import SettleSummary
from app.services.sweep import SweepSummary
from app.signals.board import Board
from app.signals.process import CALL_SECONDS, ProcessSignals

DUTY_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
REQUEST_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class WorkerSignals(ProcessSignals):
    """One counter or histogram each; the help texts say what they mean."""

    def __init__(self) -> None:
        super().__init__("worker")
        registry = self.registry
        self._sends = _counter(registry, "sends", "Sends of tasks by how they ended", "account", "answer")
        self._requests = _counter(
            registry,
            "provider_requests",
            "Requests to the provider by HTTP status; without one: no response",
            "account",
            "method",
            "status",
        )
        self._request_seconds = _histogram(
            registry,
            "provider_request_seconds",
            "Duration of requests to the provider",
            REQUEST_SECONDS,
            "account",
        )
        self._permit_seconds = _histogram(
            registry,
            "permit_wait_seconds",
            "How long a request waited until the rate let it go",
            CALL_SECONDS,
            "account",
        )
        self._polls = _counter(registry, "polls", "Tasks that were asked for, by what came of it", "outcome")
        self._settled = _counter(registry, "settled", "Settled attempts by verdict", "verdict")
        self._unsettled = _counter(
            registry,
            "unsettled",
            "Deliveries that did not settle: set_aside waits for a person, held_up and left are tried again",
            "why",
        )
        self._jobs = _counter(registry, "jobs", "Jobs that went wrong: retried, failed", "job", "outcome")
        self._lost = _counter(
            registry, "deliveries_lost", "Deliveries that had their 2xx and are not stored (lost_after_ack)"
        )
        self._add_duties()
        self._posts = _counter(
            registry, "relay_posts", "Posts of results by HTTP status; without one: no response", "status"
        )
        self._post_seconds = _histogram(
            registry, "relay_post_seconds", "Duration of posts of results", REQUEST_SECONDS
        )
        self.board = Board()
        registry.register(self.board)
        self._labels = functools.cache(lambda family, *values: family.labels(*values))

    def _add_duties(self) -> None:
        registry = self.registry
        self._duty_seconds = _histogram(
            registry, "duty_seconds", "Duration of one turn of a duty", DUTY_SECONDS, "duty"
        )
        self._duty_rows = _counter(
            registry, "duty_rows", "What the turns of a duty dealt with: rows, tasks, notices", "duty"
        )
        self._duty_failures = _counter(
            registry, "duty_failures", "Turns that failed or were cut short", "duty"
        )
        self._duty_ended = Gauge(
            "tallyhook_duty_last_turn_timestamp_seconds",
            "When the last turn of a duty ended, by this machine's clock",
            ["duty"],
            registry=registry,
        )

    def note_send(self, account: str, answer: str) -> None:
        """One send of a task has ended."""
        self._labels(self._sends, account, answer).inc()

    def note_permit(self, account: str, wait_s: float) -> None:
        """A request had its turn."""
        self._labels(self._permit_seconds, account).observe(wait_s)

    def note_request(self, account: str, method: str, status: int | None, took_s: float) -> None:
        """A request to the provider has ended."""
        self._labels(self._requests, account, method, "" if status is None else str(status)).inc()
        self._labels(self._request_seconds, account).observe(took_s)

    def of_account(self, account: str) -> "AccountSignals":
        """What the client of an account tells."""
        for method in ("GET", "POST"):  # from 0 on: what is first seen at 30 has not grown
            self._labels(self._requests, account, method, "429")
        return AccountSignals(self, account)

    def note_settled(self, chunk: SettleSummary) -> None:
        """Some deliveries were looked at."""
        for verdict, count in chunk.verdicts.items():
            self._labels(self._settled, str(verdict)).inc(count)
        ends: Mapping[str, int] = {
            "set_aside": len(chunk.set_aside),
            "held_up": len(chunk.held_up),
            "left": chunk.left,
        }
        for why, count in ends.items():
            if count:
                self._labels(self._unsettled, why).inc(count)

    def note_sweep(self, summary: SweepSummary) -> None:
        """A sweep has ended."""
        self._labels(self._polls, "finished").inc(summary.found_finished)
        self._labels(self._polls, "expired").inc(summary.expired)
        other = max(summary.polled - summary.found_finished - summary.expired, 0)
        self._labels(self._polls, "open").inc(other)
        self._labels(self._unsettled, "set_aside").inc(len(summary.set_aside))

    def note_job(self, job: str, outcome: str) -> None:
        """A job was retried, or has failed."""
        self._labels(self._jobs, job, outcome).inc()

    def note_lost(self, deliveries: int) -> None:
        """That many that were acknowledged are not stored."""
        self._lost.inc(deliveries)

    def note_turn(self, duty: str, took_s: float, rows: int | None, *, failed: bool, ended_s: float) -> None:
        """A turn of a duty has ended; `ended_s`: Unix time."""
        self._labels(self._duty_seconds, duty).observe(took_s)
        self._labels(self._duty_rows, duty).inc(rows or 0)
        self._labels(self._duty_ended, duty).set(ended_s)
        self._labels(self._duty_failures, duty).inc(int(failed))

    def note_post(self, answered: Answered, took_s: float) -> None:
        """A post of a result has ended."""
        self._labels(self._posts, "" if answered.status is None else str(answered.status)).inc()
        self._post_seconds.observe(took_s)


@dataclass(frozen=True, slots=True)
class AccountSignals:
    """Satisfies app.provider.client.Watch."""

    signals: WorkerSignals
    account: str

    def waited(self, wait_s: float) -> None:
        """A request had its turn."""
        self.signals.note_permit(self.account, wait_s)

    def ended(self, method: str, status: int | None, took_s: float) -> None:
        """A request has ended."""
        self.signals.note_request(self.account, method, status, took_s)


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    return Counter(f"tallyhook_{name}", text, labels, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...], *labels: str
) -> Histogram:
    return Histogram(f"tallyhook_{name}", text, labels, buckets=buckets, registry=registry)
