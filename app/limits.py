"""What bounds every loop, batch, body, queue, retry and timeout, each with its arithmetic. Settings has these
fields, so each is set from the environment; what is bound takes `limits` as they are. Reads no environment.
"""

import math
from decimal import Decimal
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

HOUR_S = 3_600
DAY_S = 24 * HOUR_S
BODY_BYTES_MAX = 64 * 1024 * 1024
"""No body is read back from the database that unpacks to more."""
KEEP_DAYS_MAX = 36_600
"""A century."""
KEEP_CYCLE_DAYS = 40
"""A billing cycle of a month, three days in which late reports are booked into it, and some to spare."""
KEEP_MARGIN_S = 2 * DAY_S
"""Beyond the provider's retention: a day that is partly older, and one for a sweep that was away."""
CREDITS_MAX = 1_000_000_000_000
"""Credits are whole millionths in 63 bits, and sums of them must be too."""
RATE_PER_HOUR_MAX = 36_000_000
"""10,000 a second."""


def to_ms(seconds: float) -> int:
    """Whole milliseconds, as clocks and the database count."""
    return round(seconds * 1000)


class Limits(BaseModel):
    """Of sending, receiving, settling and the sweep. Without arguments: the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    # The database.
    database_timeout_s: float = Field(10.0, gt=0, le=HOUR_S)
    """For a transaction on PostgreSQL, its connection included; whoever waits has an error within two and a
    half times this. Below the 15 s of a sender's lease, so that one which cannot prolong it knows. SQLite
    waits 10 s for another writer."""
    database_long_timeout_s: float = Field(900.0, gt=0, le=DAY_S)
    """The same for what reads or moves whole runs (report, export, verify, archive, migrate, cancel): a
    minute for a million tasks, and fifteen times that for a busy server."""
    database_connect_timeout_s: float = Field(5.0, gt=0, le=HOUR_S)
    """For a new connection: TLS and login take milliseconds, a server that is full answers at once."""

    # Submission.
    rate_per_s: float = Field(500.0, gt=0, le=10_000)
    """Create and poll calls a second, all together (C-B7). Response headers may lower it, never raise it."""
    rate_per_hour: int | None = Field(None, ge=1, le=RATE_PER_HOUR_MAX)
    """As many an hour as well, spread evenly: 1,000 for a key of the oldest layer (C-B8). Unset: none."""
    budget_per_month: Decimal | None = Field(None, gt=0, le=CREDITS_MAX, decimal_places=6)
    """Credits that all runs begun in a calendar month (UTC) may cost the default account; unset: no limit."""
    submit_in_flight: int = Field(64, ge=1, le=1_000)
    """Requests open at once: 500/s at 100 ms an answer need 50. At most four seconds' worth of the rate."""
    claim_size: int = Field(250, ge=1, le=5_000)
    """Tasks claimed at once: half a second's worth at full rate. Fewer at a rate that would send them only
    after an eighth of TALLYHOOK_CLAIM_LEASE_S."""
    claim_lease_s: float = Field(60.0, gt=0, le=DAY_S)
    """A claim is sent within seconds; after this its sender is taken for dead and it is pending again."""
    senders: int = Field(1, ge=1, le=16)
    """Processes that send at a time for one account. One does 500/s with half a core."""
    submit_lease_s: float = Field(15.0, gt=0, le=HOUR_S)
    """A sender prolongs this at each record, and is replaced when it does not."""
    drain_target_s: float = Field(12 * HOUR_S, gt=0, le=30 * DAY_S)
    """No more is sent than the provider finishes within this: half of its retention of 24 h (P1, P17)."""
    credits_probe_s: float = Field(300.0, gt=0, le=DAY_S)
    """A run that paused for want of credits tries again after this, where the balance cannot be read."""
    balance_age_max_s: float = Field(600.0, ge=0, le=DAY_S)
    """While the balance is unknown, the last one counts for so long, less what was charged since."""
    balance_unknown: str = Field("wait", pattern="^(wait|send)$")
    """After that: wait sends nothing until it is known again, send does not look at it. An edition that says
    that it has no balance is no such case."""
    engine_probe_every_s: float = Field(60.0, gt=0, le=HOUR_S)
    """How often, and up to half as long again, one task of a paused engine is let through. Three usable
    answers in a row end the pause: 3 to 4.5 minutes, and an answer's time, after the engine is well. While it
    is not, 40 to 60 tasks an hour go to it; those that fail cost nothing."""
    gateway_pause_s: float = Field(60.0, gt=0, le=DAY_S)
    """Something else answers create calls in the provider's place for so long: the runs pause, and try again
    every TALLYHOOK_CREDITS_PROBE_S. Before that the account's sending rests for 1, 2, 4, … s."""
    submit_job_s: float = Field(300.0, gt=0, le=DAY_S)
    """Sending begins anew after this, without a pause that would show."""
    request_timeout_s: float = Field(30.0, gt=0, le=HOUR_S)
    safe_resend_s: float = Field(20 * HOUR_S, gt=0, le=DAY_S)
    """A key older than this is not sent again: the provider forgets keys after about 24 h (P2)."""

    # Receiving.
    body_bytes_max: int = Field(16 * 1024 * 1024, ge=1_024, le=BODY_BYTES_MAX)
    """Answers are 10 to 30 KB, rawResponse can be megabytes (C-I.5)."""
    body_read_timeout_s: float = Field(15.0, gt=0, le=HOUR_S)
    deliveries_waiting_max: int = Field(2_000, ge=1, le=1_000_000)
    """Deliveries read but not yet committed; 2,000 of 18 KB are 36 MB. Above it: 503."""
    waiting_bytes_max: int = Field(64 * 1024 * 1024, ge=1_024, le=2**40)
    """The same bound in bytes, for large answers."""
    commit_size_max: int = Field(256, ge=1, le=10_000)
    """Deliveries that share one commit."""
    commit_timeout_s: float = Field(10.0, gt=0, le=HOUR_S)
    """Then the group is refused, and all that comes until the database takes writes again. As long as SQLite
    waits for another writer; with several receivers on PostgreSQL 3 s, so that the others take it sooner."""
    signature_window_s: int = Field(300, ge=1, le=DAY_S)
    """Deliveries signed further away than this from our clock are refused (C-I.3)."""

    # Settlement and the queue.
    settle_size: int = Field(250, ge=1, le=2_000)
    """Deliveries of one settling transaction: 250 of 18 KB are 4.5 MB, and a worker has two of them open."""
    wake_delay_s: float = Field(0.2, ge=0, le=HOUR_S)
    """How long the receiver gathers ids before it enqueues a settle job."""
    redis_timeout_s: float = Field(2.0, gt=0, le=HOUR_S)
    """For each command; arq itself sets none (A12)."""
    job_timeout_s: int = Field(30, ge=5, le=HOUR_S)
    """arq's. A killed worker's job runs again after this plus 10 s (A6); the sweep does not wait for it."""
    deliveries_tries_max: int = Field(8, ge=1, le=1_000)
    """Workers that may die over one delivery before it is set aside; other trouble uses none up."""

    # The sweep.
    sweep_every_s: float = Field(5.0, gt=0, le=HOUR_S)
    sweep_lease_s: float = Field(60.0, gt=0, le=DAY_S)
    """One process sweeps at a time; a killed one is replaced after this."""
    sweep_after_s: float = Field(10.0, gt=0, le=DAY_S)
    """A delivery not settled after this lost its wake."""
    poll_after_s: float = Field(600.0, gt=0, le=30 * DAY_S)
    """A task without a report after this is asked for (C-I.5)."""
    poll_every_s: float = Field(60.0, gt=0, le=DAY_S)
    """First interval between two polls of one task; it grows."""
    poll_size: int = Field(500, ge=1, le=10_000)
    """Polls of one sweep: one second of the provider's rate at most."""
    retention_s: float = Field(DAY_S, gt=0, le=366 * DAY_S)
    """After this the provider has deleted a task; counted from its creation, the earlier reading (P1)."""
    unmatched_s: float = Field(60.0, ge=0, le=DAY_S)
    """A delivery that fits no task is looked at again until it is this old."""
    ack_grace_s: float = Field(300.0, gt=0, le=DAY_S)
    """A delivery that the provider had a 2xx for may be missing this long before it counts as lost (P18)."""
    audit_every_s: float = Field(60.0, gt=0, le=DAY_S)
    """While credits move, an account's balance is compared with the books so often: as old as it may be."""

    # Signals.
    state_every_s: float = Field(5.0, gt=0, le=15)
    """How often one worker reads the state of the whole for the metrics, where they are shown: some 20 ms of
    the database's time. At most a third of the time that what it read is shown."""

    # The archive.
    archive_after_days: int = Field(2, ge=1, le=3_660)
    """A day is archived so many days after its end (UTC). By then the provider neither reports nor redelivers
    any more (P1, P5), and nearly everything is settled."""

    # Not settings: nobody has needed another value.
    wake_size: ClassVar[int] = 500
    """Ids of one wake: a job costs 16 to 29 Redis commands, whatever it carries. The worker settles them in
    transactions of settle_size."""
    wake_timeout_s: ClassVar[float] = 5.0
    """Above redis_timeout_s: for when the queue's own timeouts fail."""
    wakes_pending_max: ClassVar[int] = 20_000
    """Ids that wait for a slow Redis: 20,000 of 90 bytes are 2 MB. Beyond it the sweep finds the oldest."""
    flush_timeout_s: ClassVar[float] = 5.0
    """For what is queued when the process ends; for the commit and for the wakes each."""

    @property
    def polls_in_flight(self) -> int:
        """Polls open at once: they share the rate with what is sent."""
        return min(self.submit_in_flight, 16)

    @model_validator(mode="after")
    def _takes_the_largest_body(self) -> Self:
        if self.waiting_bytes_max < self.body_bytes_max:
            raise ValueError(
                "TALLYHOOK_WAITING_BYTES_MAX is below TALLYHOOK_BODY_BYTES_MAX, so the largest allowed body "
                "could never be taken: raise the first or lower the second"
            )
        return self


class RetentionLimits(BaseModel):
    """How many days rows are kept, by kind. Unset: for ever, because nobody's data is deleted unasked. The
    ledger, tasks and results are always kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    keep_bodies_days: int | None = Field(None, ge=3, le=KEEP_DAYS_MAX)
    """Bodies of settled deliveries, from which answers are read: 4.5 KB each. A whole day (UTC) goes when its
    youngest row is so old. The provider keeps a task for a day and tries a delivery for half an hour (P1,
    P5); the rest is for what was late, and for people."""

    keep_submissions_days: int | None = Field(None, ge=3, le=KEEP_DAYS_MAX)
    """How sends ended: 220 bytes a task. Of attempts that were accepted and whose money is closed; what an
    attempt without an acceptance was told stays, because nothing else says it."""
    keep_balances_days: int | None = Field(None, ge=KEEP_CYCLE_DAYS, le=KEEP_DAYS_MAX)
    """What the provider reported that accounts have, once a minute: 60 bytes each. The first and the last of
    a day stay. No cycle may be open that old: it is booked by its balances for a month and three days."""
    keep_notices_days: int | None = Field(None, ge=KEEP_CYCLE_DAYS, le=KEEP_DAYS_MAX)
    """Notices that were sent or given up: 600 bytes each. What could come up again stays, and would be sent
    twice otherwise; some of it does for as long as a cycle."""
    keep_findings_days: int | None = Field(None, ge=3, le=KEEP_DAYS_MAX)
    """Findings that nobody disputes any more: 300 bytes each. Only once the bodies that prove them are gone,
    so without keep_bodies_days none goes. How many there were stays in all figures."""
    keep_keys_days: int | None = Field(None, ge=3, le=KEEP_DAYS_MAX)
    """Keys that callers of the provider's dialect gave to tasks that are over: 150 bytes each, with their
    indexes. A key that is gone buys a new task; the provider forgets one within a day or so (P2)."""

    @model_validator(mode="after")
    def _outlasts_the_provider(self) -> Self:
        retention_s = getattr(self, "retention_s", DAY_S)
        for name in RetentionLimits.model_fields:
            days = getattr(self, name)
            if days is not None and days * DAY_S < retention_s + KEEP_MARGIN_S:
                raise ValueError(
                    f"TALLYHOOK_{name.upper()} is {days}, and the provider may report on a task for "
                    f"TALLYHOOK_RETENTION_S = {retention_s:g} seconds: set it to "
                    f"{math.ceil((retention_s + KEEP_MARGIN_S) / DAY_S)} or more"
                )
        return self


class ApiLimits(BaseModel):
    """Of the API."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    api_rate_per_s: float = Field(500.0, gt=0, le=10_000)
    """Requests a second for each token and process, and as many at once after a pause: what the provider
    itself takes (C-B7), so that a client of its API needs no other pace here."""
    api_in_flight: int = Field(64, ge=1, le=10_000)
    """Requests that are answered at once; those that wait for their turn are refused beyond 16 times as many.
    Writes of single tasks share commits, and 500/s of 100 ms need 50."""
    api_in_flight_beside_web: int = Field(4, ge=1, le=10_000)
    """The same with `web --with-api`, where the receiver needs the processor."""
    api_timeout_s: float = Field(30.0, gt=0, le=HOUR_S)
    """A request is given up after this, its waiting and its body included; uploads and streams are not."""
    api_idempotency_days: int = Field(1, ge=1, le=90)
    """How long an answer is given again to its Idempotency-Key: some 1 KB each, and 60 of an upload's faults.
    Clients repeat themselves within minutes, a pipeline on its next working day."""
    api_streams_max: int = Field(250, ge=1, le=10_000)
    """Streams that are open at once, open pages among them: each is a connection and, while it is read, some
    100 KB; 25 MB, and an eighth of the connections. Never more than four for each request that is answered at
    once: 16 beside the receiver."""

    # Not settings.
    api_body_bytes_max: ClassVar[int] = 1024 * 1024
    """Of a JSON body; uploads are streamed and have no bound."""


class NoticeLimits(BaseModel):
    """Of notices."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    notice_tries_max: int = Field(12, ge=1, le=30)
    """5 s, 20 s, 80 s, … at most 12 h apart: twelve tries take 28 to 56 hours."""
    notice_timeout_s: float = Field(15.0, gt=0, le=60)
    notice_every_s: float = Field(5.0, gt=0, le=HOUR_S)
    """How often a worker looks for notices to write, and for what is to be sent."""
    notice_size: int = Field(10, ge=1, le=100)
    """Notices tried at once; a turn takes no longer than one request may."""
    forecast_every_s: float = Field(60.0, gt=0, le=DAY_S)
    """How often the warnings of the forecast are looked at; the balance lags as much (P11)."""

    engine_success_min: float = Field(0.5, ge=0, le=1)
    """An engine fails when fewer of its newest results than this share can be used; 0: never said."""
    engine_tasks: int = Field(50, ge=5, le=250)
    """Over so many of its newest results: at 50, a share of 0.5 is met by chance in 0.5 ± 0.14. Of the 2,000
    that are looked at, 250 are left for each of eight engines."""
    usable_chars_min: int = Field(20, ge=0, le=1_000_000)
    """An answer with less text is too short to use: here, and in a report that says nothing else."""

    @property
    def notice_lease_s(self) -> float:
        """How long a notice is its worker's. A turn takes as long as its slowest request; the rest is for the
        database."""
        return self.notice_timeout_s + 30


class RelayLimits(BaseModel):
    """Of results that are pushed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    relay_in_flight: int = Field(128, ge=1, le=2_000)
    """Posts under way at once, of one worker: at 128 a receiver that takes 100 ms is sent 1,000/s. Each
    holds its answer; 128 of 18 KB are 2 MB, and of the longest that is posted, 1 MB, 128 MB."""
    relay_endpoint_in_flight: int = Field(32, ge=1, le=500)
    """Of them to one endpoint; fewer where more endpoints are posted to than share relay_in_flight."""
    relay_timeout_s: float = Field(15.0, gt=0, le=60)
    relay_every_s: float = Field(1.0, gt=0, le=HOUR_S)
    """How often a worker looks for results to push and for endpoints that are due."""
    relay_failing_s: float = Field(24 * HOUR_S, gt=0, le=30 * DAY_S)
    """An endpoint that took nothing for so long is set aside. What is for it waits."""

    relay_lease_s: float = Field(30.0, gt=0, le=DAY_S)
    """How long an endpoint is its worker's, which prolongs it every relay_every_s. What a killed one had goes
    on after this."""
