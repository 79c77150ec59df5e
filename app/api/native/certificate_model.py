"""What `/v1/certificates/{run_id}` answers: the document of `tallyhook certificate --json` as it is, since
its hash is over it. So its credits are integers where they are whole, and exact decimals in strings else.
"""

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Id, TimeText, WholeOrExact


class _Part(BaseModel):
    """A field that the document has and its model has not would be missing from what the hash is over."""

    model_config = ConfigDict(extra="forbid")


class CertifiedRun(_Part):
    """Which run."""

    id: Id
    name: str
    account: str
    begun_at: TimeText


class CertifiedInput(_Part):
    """What it was made of."""

    source: str
    prompts: int
    bad_lines: int


class CertifiedEnds(_Part):
    """Tasks by state."""

    pending: int
    submitting: int
    submitted: int
    completed: int
    failed: int
    rejected: int
    expired: int
    cancelled: int


class CertifiedCredits(_Part):
    """Sums of all attempts, and of the ledger."""

    estimated: WholeOrExact
    to_charge: WholeOrExact
    holds: WholeOrExact
    open_holds: WholeOrExact
    posted: WholeOrExact
    voided: WholeOrExact
    charged: WholeOrExact
    adjustments: WholeOrExact


class Hashes(_Part):
    """SHA-256 in hex."""

    source_sha256: str | None
    results_sha256: str
    ledger_sha256: str


class OpenQuestion(_Part):
    """What stands between the run and its completeness."""

    question: str
    count: int
    credits: WholeOrExact | None


class CertifiedPruned(_Part):
    """What was dropped since it was verified."""

    answers: int
    sends: int
    findings: int
    verified_until: TimeText


class Certificate(_Part):
    """As `tallyhook certificate --json` writes it, hashes included."""

    format: str
    made_at: TimeText = Field(description="No part of the hash.")
    complete: bool
    statement: str = Field(description="Whether the run is complete, in one sentence.")
    run: CertifiedRun
    input: CertifiedInput
    ends: CertifiedEnds
    retried_attempts: int
    verdicts: dict[str, int]
    credits: CertifiedCredits
    hashes: Hashes
    open_questions: list[OpenQuestion] = Field(description="Empty: the run is complete.")
    discrepancies: dict[str, int]
    pruned: CertifiedPruned | None = Field(
        default=None, exclude_if=lambda pruned: pruned is None, description="Not there: nothing was."
    )
    certificate_sha256: str
