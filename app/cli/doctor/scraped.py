"""What the doctor says of what each process of this machine counts, by its scrape port: states that alerts
know and no database does. Averages since the process began: what began just now, the alerts see first."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from app.address.listening import host_from_here, host_in_url
from app.cli.doctor.check import Check
from app.config import Settings
from app.domain.text import counted
from app.domain.time_format import iso_utc
from app.signals.scrape import PORTS_TRIED

TIMEOUT_S = 4.0
SPAN_S_MIN = 300.0
"""A process is taken to be at least so old, so that one failure at its start is no flood."""
WRONG_SIGNATURES = ("mismatch", "stale", "unknown_account", "missing_headers")
TURN_WITHIN_S = 600.0
DUTIES = ("alive", "audits", "notices", "relay", "sweep", "wakes")
"""Whose turns may not fail to come, in whichever worker."""
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as its scrape port shows it."""

    url: str
    samples: Mapping[tuple[str, Labels], float]
    """(name, labels) -> value."""
    why_not_ready: tuple[str, ...] = ()
    now_s: float = 0.0

    @property
    def name(self) -> str:
        """web, api or worker, and where."""
        kind = next((dict(of)["process"] for (name, of) in self.samples if name == INFO), "process")
        return f"{kind} at {self.url}"

    @property
    def began_s(self) -> float:
        """When it began: Unix time."""
        return self.samples.get(("process_start_time_seconds", frozenset()), self.now_s)

    def total(self, name: str, **labels: str) -> float:
        """Of all series with these labels."""
        return sum(value for of, value in self.series(name) if labels.items() <= of)

    def rate(self, name: str, per_s: float, **labels: str) -> float:
        """How much of a counter came in so many seconds, on average."""
        return self.total(name, **labels) * per_s / max(self.now_s - self.began_s, SPAN_S_MIN)

    def most(self, name: str) -> dict[str, float]:
        """Of a series with one label: label -> value."""
        return {next(iter(of))[1]: value for of, value in self.series(name)}

    def above(self, histogram: str, bound_s: float) -> float:
        """Which part of what was measured took longer; `bound_s` is one of its buckets."""
        every = self.total(f"{histogram}_count")
        within = self.total(f"{histogram}_bucket", le=str(bound_s))
        return 0.0 if not every else 1 - within / every

    def series(self, name: str) -> Iterable[tuple[Labels, float]]:
        """Labels and value of each."""
        return ((of, value) for (found, of), value in self.samples.items() if found == name)


INFO = "tallyhook_process_info"
Look = Callable[[Process], str | None]


def _per_minutes(name: str, at_least: float, minutes: int, what: str, **labels: str) -> Look:
    def look(process: Process) -> str | None:
        rate = process.rate(name, minutes * 60, **labels)
        return f"{what}: {rate:,.0f} in {minutes} min on average" if rate > at_least else None

    return look


def _slow(histogram: str, bound_s: float, what: str) -> Look:
    def look(process: Process) -> str | None:
        share = process.above(histogram, bound_s)
        return f"{share:.0%} of {what} more than {bound_s:g} s" if share > 0.01 else None

    return look


def _signatures(process: Process) -> str | None:
    name, found = "tallyhook_deliveries_refused_total", []
    for reason in WRONG_SIGNATURES:
        if process.rate(name, 300, reason=reason) > 10:
            found.append(f"{reason}: {process.total(name, reason=reason):,.0f}")
    return f"deliveries were refused ({', '.join(found)})" if found else None


def _old_secret(process: Process) -> str | None:
    count = int(process.total("tallyhook_deliveries_old_secret_total"))
    if count and process.now_s - process.began_s > 86_400:
        return f"{counted(count, 'delivery', 'deliveries')} came with an old secret"
    return None


def _failing_api(process: Process) -> str | None:
    name = "tallyhook_api_requests_total"
    failed = sum(value for of, value in process.series(name) if dict(of)["status"].startswith("5"))
    every = process.total(name)
    return f"{failed / every:.0%} of the API's requests failed" if every and failed / every > 0.05 else None


def _failing_duties(process: Process) -> str | None:
    name = "tallyhook_duty_failures_total"
    found = [duty for duty in process.most(name) if process.rate(name, 600, duty=duty) > 2]
    return f"turns fail of {', '.join(sorted(found))}" if found else None


LOOKS: Mapping[str, tuple[Look, str]] = {
    "TallyhookSignaturesRefused": (_signatures, "compare CLORO_WEBHOOK_SECRET with the provider's dashboard"),
    "TallyhookOldSecret": (_old_secret, "see that the provider has the newest secret, then drop the old one"),
    "TallyhookCommitsFail": (
        _per_minutes("tallyhook_inbox_commit_failures_total", 0.9, 5, "commits of deliveries fail"),
        "look at the check of the database; the provider tries again for half an hour",
    ),
    "TallyhookCommitsSlow": (
        _slow("tallyhook_inbox_commit_seconds", 1.0, "commits of deliveries took"),
        "look at the disk of the database, and at locks in it",
    ),
    "TallyhookDatabaseFails": (
        _per_minutes(
            "tallyhook_database_failures_total", 0.9, 5, "transactions that the database did not take"
        ),
        "look at store_unavailable in its log, and at the check of the database",
    ),
    "TallyhookRedisFails": (
        _per_minutes("tallyhook_redis_failures_total", 0.9, 5, "commands that Redis did not answer"),
        "look at the check of redis; work goes on from the database, later",
    ),
    "TallyhookLoopLate": (
        _slow("tallyhook_loop_lag_seconds", 0.5, "turns of its event loop were late by"),
        "it needs a processor, or another process beside it",
    ),
    "TallyhookApiFails": (_failing_api, "look at its log for the status 5xx"),
    "TallyhookRateRefused": (
        _per_minutes(
            "tallyhook_provider_requests_total", 20, 10, "requests refused for their rate (429)", status="429"
        ),
        "see who else uses the key; compare the account's rate with the plan's",
    ),
    "TallyhookDutyFails": (_failing_duties, "look at turn_failed and store_unavailable in its log"),
}
"""Alert -> whether its state is met, in words, and what to do."""


async def check_scraped(settings: Settings) -> list[Check]:
    """Of each process of this machine that is scraped; nothing where none is to be."""
    if settings.metrics_port is None:
        return []
    host = host_in_url(host_from_here(settings.metrics_host))
    last = min(settings.metrics_port + PORTS_TRIED, 65_536)
    urls = [f"http://{host}:{port}" for port in range(settings.metrics_port, last)]
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        asked = await asyncio.gather(*(_process(session, url) for url in urls))
    return judge([process for process in asked if process is not None])


def judge(processes: list[Process]) -> list[Check]:
    """What is out of bounds; one line in all where nothing is."""
    if not processes:
        remedy = "start web, api and worker with the same TALLYHOOK_METRICS_PORT as here"
        return [Check("processes", "warning", "nobody is scraped on this machine", remedy)]
    found = [*_standing_duties(processes)]
    for process in processes:
        if process.why_not_ready:
            detail = f"it is not ready: {'; '.join(process.why_not_ready)}"
            found.append(Check(process.name, "fault", detail, "look at its log, and at the other checks"))
        since = iso_utc(round(process.began_s * 1000))
        for look, remedy in LOOKS.values():
            if (what := look(process)) is not None:
                found.append(Check(process.name, "warning", f"{what} (since {since})", remedy))
    names = ", ".join(process.name for process in processes)
    return found or [Check("processes", "ok", f"nothing goes wrong in {names}")]


def _standing_duties(processes: list[Process]) -> Iterable[Check]:
    name, ages_s = "tallyhook_duty_last_turn_timestamp_seconds", dict[str, float]()
    for process in processes:
        for duty, at_s in process.most(name).items():
            ages_s[duty] = min(ages_s.get(duty, float("inf")), process.now_s - at_s)
    for duty, age_s in sorted(ages_s.items()):
        if duty in DUTIES and age_s > TURN_WITHIN_S:
            detail = f"the duty {duty} ended no turn for {age_s / 60:.0f} min, in no worker of this machine"
            yield Check("duties", "fault", detail, "restart the workers one by one")


async def _process(session: aiohttp.ClientSession, url: str) -> Process | None:
    """None: nobody listens there, or somebody else."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        async with session.get(f"{url}/readyz") as response:
            ready = msgspec.json.decode(await response.read())
        samples = _samples(text)
        if any(name == INFO for name, _ in samples):
            return Process(url, samples, tuple(map(str, ready["reasons"])), time.time())
    return None


def _samples(text: str) -> dict[tuple[str, Labels], float]:
    # Loads late: only who is scraped pays for it.
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
