"""What `/v1/runs/{run_id}/report` answers: the document of `tallyhook report --json`, credits in strings."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Credits, Id, TimeText


class _Part(BaseModel):
    """A field that the document has and its model has not is a bug of ours, and told as one."""

    model_config = ConfigDict(extra="forbid")


class ReportedRun(_Part):
    """A run as its row says."""

    id: Id
    name: str
    source: str
    account: str
    state: Literal["loading", "running", "paused", "stopped", "finished", "cancelled"]
    reason: str | None
    reason_code: str | None
    budget: Credits | None
    bad_lines: int
    created_at: TimeText
    finished_at: TimeText | None
    restored: bool
    retained_at: TimeText | None


class ReportCredits(_Part):
    """Sums of all attempts."""

    estimate: Credits
    charged: Credits = Field(description="As reports said.")
    held: Credits = Field(description="Of holds that nothing has closed.")
    posted: Credits
    voided: Credits


class ReportVerdicts(_Part):
    """How many of each."""

    matched: int
    free_failure: int
    explained: int
    overcharged: int
    undercharged: int
    charged_failure: int
    unknown: int
    conflict: int
    repriced: int
    double_charged: int
    unmatched: int
    lost_after_ack: int


class ReportFinding(_Part):
    """What needs explaining, with what was asked."""

    verdict: str
    task_id: Id | None
    attempt: int | None
    expected: Credits | None
    actual: Credits | None
    detail: str
    delivery_id: Id | None
    ordinal: int | None
    task_type: str | None
    custom_id: str | None
    sample: int | None
    repeats: int | None
    country: str | None
    prompt: str | None = Field(description="Its beginning.")
    metadata: dict[str, Any] | None


class Pruned(_Part):
    """What was dropped of it by then."""

    answers: int
    sends: int
    findings: int
    first_at: TimeText | None


class CreditsAtStake(_Part):
    """Holds that no charge has closed."""

    attempts: int
    credits: Credits


class Exposure(_Part):
    """Of work that is under way, and of what is closed though its charge is not known."""

    in_flight: CreditsAtStake
    unknown: CreditsAtStake


class EngineCountryFigures(_Part):
    """What one engine did in one country; `country` null: the provider chose."""

    task_type: str
    country: str | None
    tasks: int
    completed: int
    usable: int
    short: int = Field(description="Completed, and too short to use.")
    unmeasured: int
    failed: int
    unanswered: int
    open: int
    posted: Credits
    held: Credits
    posted_per_usable: Credits | None = Field(description="To a millionth; null: no answer is usable.")
    reported: int
    swept: int = Field(description="Of the reported: polled for.")
    p50_ms: int | None
    p95_ms: int | None


class EngineDay(_Part):
    """Credits posted for one engine on one day, UTC."""

    day: str = Field(json_schema_extra={"format": "date"})
    task_type: str
    posted: Credits


class LatencyClass(_Part):
    """Tasks that took less than this, and not less than the class before."""

    below_ms: int | None = Field(description="null: above the last class.")
    tasks: int


class EngineLatency(_Part):
    """Acceptance to settlement of one engine's tasks."""

    task_type: str
    tasks: int
    p50_ms: int
    p90_ms: int
    p95_ms: int
    p99_ms: int
    max_ms: int
    histogram: list[LatencyClass]


class SampledRecords(_Part):
    """Records that ask for so many samples and have so many answered."""

    repeats: int
    answered: int
    records: int


class RunReport(_Part):
    """What the money of a run bought."""

    run: ReportedRun
    finished: bool
    tasks: int
    open: int
    pending: int
    submitting: int
    submitted: int
    completed: int
    failed: int
    rejected: int
    expired: int
    cancelled: int
    duplicates: int = Field(description="Reports that came again.")
    swept: int = Field(description="Settled by asking, since no delivery came.")
    recovered_submits: int
    reused: int = Field(description="Tasks that an equal result of before answers, for nothing.")
    verdicts: ReportVerdicts
    credits: ReportCredits
    money_open: int = Field(description="Attempts whose money is open though their work is closed.")
    findings: list[ReportFinding] = Field(description="The first hundred; `/v1/findings` has all.")
    pruned: Pruned | None
    usable_chars_min: int
    adjusted: Credits
    findings_count: int
    exposure: Exposure
    by_engine_country: list[EngineCountryFigures]
    by_day: list[EngineDay]
    latency: list[EngineLatency]
    repeats: list[SampledRecords]
