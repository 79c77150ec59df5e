"""Settings from the environment, read once. Every loop, batch, body, queue, retry and timeout has its limit
here, with the arithmetic beside it. Names that the ecosystem has are bare; ours begin with TALLYHOOK_.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EMULATOR_URL = "http://127.0.0.1:8090"
EMULATOR_KEY = "sk_test_0123456789abcdef0123456789abcdef"
EMULATOR_WEBHOOK_SECRET = "whsec_test_0123456789abcdef0123456789abcdef"  # noqa: S105 - the emulator's, public
PROVIDER_URL = "https://api.cloro.dev"


DEFAULT_ACCOUNT = "default"
ACCOUNT_NAME = "^[a-z0-9][a-z0-9_-]{0,31}$"


@dataclass(frozen=True, slots=True)
class Account:
    """One API key of the provider's, with everything that belongs to it."""

    name: str
    api_key: str
    base_url: str
    webhook_secrets: tuple[str, ...]
    """Current secret first; several while rotating (P8)."""
    webhook_url: str
    """Where the provider is told to deliver; each account has its own, because each has its own secret."""
    rate_per_s: float
    rate_per_hour: int | None
    budget_per_month: Decimal | None
    """Credits of all runs begun in a calendar month (UTC), at most; None: no limit."""


class AccountSettings(BaseModel):
    """A further account, as it stands in TALLYHOOK_ACCOUNTS."""

    model_config = ConfigDict(extra="forbid")

    api_key: SecretStr
    webhook_secret: SecretStr = SecretStr("")
    """Several, comma-separated, while rotating."""
    base_url: str = PROVIDER_URL
    rate_per_s: float | None = Field(None, gt=0, le=10_000)
    rate_per_hour: int | None = Field(None, ge=1)
    budget_per_month: Decimal | None = Field(None, gt=0)


class ConfigError(Exception):
    """A setting is missing or wrong; the text names it and the remedy."""


class Settings(BaseSettings):
    """Everything that can be set. With nothing set, all runs embedded: a SQLite file, a Valkey from its
    wheel, the emulator."""

    model_config = SettingsConfigDict(env_prefix="TALLYHOOK_", env_file=".env", extra="ignore")

    # Names that the ecosystem already has.
    database_url: str = Field("", validation_alias="DATABASE_URL")
    redis_url: str = Field("", validation_alias="REDIS_URL")
    port: int = Field(8080, validation_alias="PORT", ge=0, le=65535)
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    cloro_api_key: SecretStr = Field(SecretStr(""), validation_alias="CLORO_API_KEY")
    cloro_base_url: str = Field("", validation_alias="CLORO_BASE_URL")
    cloro_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), validation_alias="CLORO_WEBHOOK_SECRET"
    )

    # Ours.
    accounts: dict[Annotated[str, Field(pattern=ACCOUNT_NAME)], AccountSettings] = {}
    """Further API keys by name, as JSON: {"eu": {"api_key": "…", "webhook_secret": "…"}}. The key of
    CLORO_API_KEY is the account `default`."""
    host: str = "127.0.0.1"
    data_dir: Path = Path(".tallyhook")
    """Where the embedded database and queue keep their files."""
    log_format: str = Field("auto", pattern="^(auto|json|console)$")
    """auto: readable on a terminal, JSON elsewhere."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    share_port: bool = False
    """Several web processes listen on one port (SO_REUSEPORT). Off, so that a port taken by mistake shows."""
    allow_unsigned: bool = False
    """Accept deliveries without verifying them. Only for a provider account without signing (P7)."""

    # Submission.
    rate_per_s: float = Field(500.0, gt=0, le=10_000)
    """Create and poll calls a second, all together (C-B7). Response headers may lower it, never raise it."""
    rate_per_hour: int | None = Field(None, ge=1)
    """As many an hour as well, spread evenly: 1,000 for a key of the oldest layer (C-B8). Unset: none."""
    budget_per_month: Decimal | None = Field(None, gt=0)
    """Credits that all runs begun in a calendar month (UTC) may cost the default account; unset: no limit."""
    submit_in_flight: int = Field(64, ge=1, le=1_000)
    """Requests open at once: 500/s at 100 ms an answer need 50."""
    claim_size: int = Field(250, ge=1, le=5_000)
    """Tasks claimed at once: half a second's worth at full rate."""
    claim_lease_s: float = Field(60.0, gt=0)
    """A claim is sent within seconds; after this its sender is taken for dead and it is pending again."""
    senders: int = Field(1, ge=1, le=16)
    """Processes that send at a time for one account. One does 500/s with half a core."""
    submit_lease_s: float = Field(15.0, gt=0)
    """A sender prolongs this at each record, and is replaced when it does not."""
    drain_target_s: float = Field(12 * 3600, gt=0)
    """No more is sent than the provider finishes within this: half of its retention of 24 h (P1, P17)."""
    credits_probe_s: float = Field(300.0, gt=0)
    """A run that paused for want of credits tries again after this, where the balance cannot be read."""
    submit_job_s: float = Field(300.0, gt=0)
    """Sending begins anew after this, without a pause that would show."""
    request_timeout_s: float = Field(30.0, gt=0)
    safe_resend_s: float = Field(20 * 3600, gt=0)
    """A key older than this is not sent again: the provider forgets keys after about 24 h (P2)."""

    # Receiving.
    body_bytes_max: int = Field(16 * 1024 * 1024, ge=1_024)
    """Answers are 10 to 30 KB, rawResponse can be megabytes (C-I.5); the decoded size counts."""
    body_read_timeout_s: float = Field(15.0, gt=0)
    deliveries_waiting_max: int = Field(2_000, ge=1)
    """Deliveries read but not yet committed; 2,000 of 18 KB are 36 MB. Above it: 503."""
    waiting_bytes_max: int = Field(64 * 1024 * 1024, ge=1_024)
    """The same bound in bytes, for large answers."""
    commit_size_max: int = Field(256, ge=1)
    """Deliveries that share one commit."""
    commit_timeout_s: float = Field(10.0, gt=0)
    signature_window_s: int = Field(300, ge=1)
    """Deliveries signed further away than this from our clock are refused (C-I.3)."""

    # Settlement and the queue.
    settle_size: int = Field(250, ge=1, le=2_000)
    """Deliveries of one settling transaction: 250 of 18 KB are 4.5 MB, and a worker has two of them open."""
    wake_delay_s: float = Field(0.2, ge=0)
    """How long the receiver gathers ids before it enqueues a settle job."""
    redis_timeout_s: float = Field(2.0, gt=0)
    """For each command; arq itself sets none (A12)."""
    job_timeout_s: int = Field(30, ge=5)
    """arq's. A killed worker's job runs again after this plus 10 s (A6); the sweep does not wait for it."""
    deliveries_tries_max: int = Field(8, ge=1)
    """Workers that may die over one delivery before it is set aside; other trouble uses none up."""

    # The sweep.
    sweep_every_s: float = Field(5.0, gt=0)
    sweep_lease_s: float = Field(60.0, gt=0)
    """One process sweeps at a time; a killed one is replaced after this."""
    sweep_after_s: float = Field(10.0, gt=0)
    """A delivery not settled after this lost its wake."""
    poll_after_s: float = Field(600.0, gt=0)
    """A task without a report after this is asked for (C-I.5)."""
    poll_every_s: float = Field(60.0, gt=0)
    """First interval between two polls of one task; it grows."""
    poll_size: int = Field(500, ge=1)
    """Polls of one sweep: one second of the provider's rate at most."""
    retention_s: float = Field(24 * 3600, gt=0)
    """After this the provider has deleted a task; counted from its creation, the earlier reading (P1)."""
    unmatched_s: float = Field(60.0, ge=0)
    """A delivery that fits no task is looked at again until it is this old."""
    ack_grace_s: float = Field(300.0, gt=0)
    """A delivery that the provider had a 2xx for may be missing this long before it counts as lost (P18)."""
    audit_every_s: float = Field(60.0, gt=0)
    """While credits move, an account's balance is compared with the books so often: as old as it may be."""

    # Notices.
    notice_url: str = ""
    """Where notices are posted to; unset: they go to the log only."""
    notice_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """whsec_<base64>; several, comma-separated, while the receiver changes it: each signs."""
    notice_tries_max: int = Field(12, ge=1, le=30)
    """5 s, 20 s, 80 s, … at most 12 h apart: twelve tries take 28 to 56 hours."""
    notice_timeout_s: float = Field(15.0, gt=0, le=60)
    notice_every_s: float = Field(5.0, gt=0)
    """How often a worker looks for what there is to tell, and for what is to be sent."""
    notice_size: int = Field(10, ge=1, le=100)
    """Notices tried at once; a turn takes no longer than one request may."""
    forecast_every_s: float = Field(60.0, gt=0)
    """How often the warnings of the forecast are looked at; the balance lags as much (P11)."""

    @field_validator("accounts")
    @classmethod
    def _no_second_default(cls, value: dict[str, AccountSettings]) -> dict[str, AccountSettings]:
        if DEFAULT_ACCOUNT in value:
            raise ValueError(f"the account {DEFAULT_ACCOUNT!r} is CLORO_API_KEY's; choose another name")
        return value

    @field_validator("cloro_webhook_secret", "notice_secret", mode="before")
    @classmethod
    def _split_secrets(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(SecretStr(part) for part in _split(value))
        return value

    @property
    def embedded_provider(self) -> bool:
        """No key is set: the local emulator stands in for the provider."""
        return not self.cloro_api_key.get_secret_value()

    @property
    def webhook_url(self) -> str:
        """Where the provider is told to deliver for the default account."""
        base = self.public_url or f"http://127.0.0.1:{self.port}"
        return f"{base.rstrip('/')}/webhooks/cloro"

    def all_accounts(self) -> dict[str, Account]:
        """Every account by name; the default one first."""
        url = EMULATOR_URL if self.embedded_provider else PROVIDER_URL
        secrets = tuple(secret.get_secret_value() for secret in self.cloro_webhook_secret)
        if not secrets and self.embedded_provider:
            secrets = (EMULATOR_WEBHOOK_SECRET,)
        default = Account(
            DEFAULT_ACCOUNT, self.cloro_api_key.get_secret_value() or EMULATOR_KEY,
            (self.cloro_base_url or url).rstrip("/"), secrets, self.webhook_url, self.rate_per_s,
            self.rate_per_hour, self.budget_per_month,
        )  # fmt: skip
        return {DEFAULT_ACCOUNT: default} | {
            name: Account(
                name, account.api_key.get_secret_value(), account.base_url.rstrip("/"),
                _split(account.webhook_secret.get_secret_value()), f"{self.webhook_url}/{name}",
                account.rate_per_s or self.rate_per_s, account.rate_per_hour, account.budget_per_month,
            )
            for name, account in self.accounts.items()
        }  # fmt: skip

    @property
    def api_key(self) -> str:
        return self.all_accounts()[DEFAULT_ACCOUNT].api_key

    @property
    def base_url(self) -> str:
        return self.all_accounts()[DEFAULT_ACCOUNT].base_url

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        return self.all_accounts()[DEFAULT_ACCOUNT].webhook_secrets

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'tallyhook.db').absolute()}"


def _split(secrets: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in secrets.split(",") if part.strip())


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; raises ConfigError that names each wrong setting."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else "?"
            bare = {"DATABASE_URL", "REDIS_URL", "PORT", "PUBLIC_URL"}
            shown = name if name in bare or name.startswith("CLORO_") else f"TALLYHOOK_{name.upper()}"
            lines.append(f"{shown}: {problem['msg']}")
        raise ConfigError("; ".join(lines)) from error
