"""Settings of one emulator process, with their defaults and the reasons for them."""

from dataclasses import dataclass, field, replace
from typing import Literal

from app.emulator.billing.organization_spec import OrganizationSpec
from app.emulator.checks.validation import Leniency
from app.emulator.engine.faults import FaultRates

DEFAULT_KEY = "sk_test_0123456789abcdef0123456789abcdef"
DEFAULT_SECRET = "whsec_test_0123456789abcdef0123456789abcdef"  # noqa: S105 - published, for local use only


@dataclass(slots=True, kw_only=True)
class Switches:
    """The unknowns of C-L that are a choice; the defaults are that table's recommendations."""

    leniency: Leniency = field(default_factory=Leniency)
    """L2."""
    lookup_by_key: bool = False
    """L5: GET /v1/async/task/{idempotencyKey} works as well."""
    wait_for_credits: bool = False
    """L7: an uncovered task stays QUEUED instead of failing at pick-up."""
    clear_queue: bool = False
    """Row B23: True serves DELETE /v1/async/queue also where it did not exist."""
    price_at_submission: bool = False
    """E.5: True keeps the estimate even if prices change before completion."""
    batch_against_balance: bool = False
    """L10: True checks each batch item against the whole balance."""
    bill_canceled: Literal["never", "completed", "always"] | None = None
    """L23; None: as row B45."""
    ladder_jitter: float = 0.0
    """L18: share of a wait that is drawn at random."""
    credits_endpoint: bool = True
    """Row B22: False takes /v1/credits away in editions that had none."""
    short_answers: bool = False
    """True: empty answers, billed as any other, for runs of very many tasks."""
    concurrency_headers: Literal["concurrent", "concurrency", "both"] | None = None
    """The reference and the vendor's notes of the same year spell them differently; None: as row B3."""
    test_keys_free: bool = False
    """L29; off, since a rehearsal that costs nothing rehearses nothing."""

    @property
    def state_outside_us(self) -> str:
        """The reference refuses `state` outside the US, the vendor's notes have it ignored (C-K.0)."""
        return "ignored" if self.leniency.state_outside_us else "refused"

    @state_outside_us.setter
    def state_outside_us(self, value: str) -> None:
        self.leniency = replace(self.leniency, state_outside_us=value == "ignored")

    @property
    def country_case(self) -> str:
        """The reference and the validators refuse `us`, which a plugin of the vendor's sends (C-K.0)."""
        return "any" if self.leniency.country_case else "upper"

    @country_case.setter
    def country_case(self, value: str) -> None:
        self.leniency = replace(self.leniency, country_case=value == "any")


SWITCH_CHOICES = {
    "bill_canceled": ("never", "completed", "always"),
    "concurrency_headers": ("concurrent", "concurrency", "both"),
    "country_case": ("upper", "any"),
    "state_outside_us": ("refused", "ignored"),
}
"""Of the switches that are words."""


@dataclass(slots=True, kw_only=True)
class Options:
    """Settings of one process; the provider's durations are in emulated seconds, except where marked real."""

    edition: str = "2025"
    plan: str = "starter"
    organization: str = "default"
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    organizations: tuple[OrganizationSpec, ...] = ()
    """In addition to the default one."""
    control_token: str | None = None
    """What requests below /_emulator must send; None: nothing."""
    webhook_secret: str | None = DEFAULT_SECRET
    """None: deliveries are unsigned."""
    time_scale: float = 1.0
    concurrency: int | None = None
    """None: the plan's."""
    requests_per_s: int | None = None
    """None: the edition's; 0: no limit."""
    credits: int | None = None
    """Opening balance; None: the plan's allocation."""
    prices: str | None = None
    """A price list by name; None: the edition's."""
    todays_prices: bool = False
    """The edition's wire, with the prices and paid options in force now."""
    seed: int = 0
    faults: FaultRates = field(default_factory=FaultRates)
    switches: Switches = field(default_factory=Switches)
    grok: bool | None = None
    """None: as the edition has it (on in 2025, off in 2026, K.4)."""
    attempts_max: int = 5
    """Internal ones per task (C-H)."""
    internal_backoff_s: float = 2.0
    """L28."""
    delivery_timeout_s: float = 10.0
    """Real; L17 recommends 10 to 30."""
    deliveries_in_flight_max: int = 64
    ladder_s: tuple[float, ...] = (120.0, 240.0, 480.0, 960.0)
    """Waits after a failed attempt (C-I.5)."""
    retention_s: float = 24 * 3600.0
    queue_max: int = 100_000
    book_lines_max: int = 200_000
    """Records past retention that the books still list, per organization."""
    sync_budget_s: float = 300.0
    """No new attempt of a sync call starts after this (C-H)."""
    local_html: bool = False
    """Links that this process answers, and lets expire, instead of the provider's hosts."""

    @property
    def fault_seed(self) -> int:
        """The seed of faults, which may be changed while answers must stay what they were."""
        return self.seed if self.faults.seed is None else self.faults.seed
