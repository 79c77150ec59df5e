"""Settings from the environment, read once. Every loop, batch, body, queue, retry and timeout has its limit
here, with its arithmetic. Names that the ecosystem has are bare; ours begin with TALLYHOOK_.
"""

import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from app.address import AddressError, read_database_address, read_redis_address
from app.address.listening import host_in_url, reachable_here, read_host
from app.address.web import Outbound, goes_straight, proxy_parts, read_http_url
from app.settings_text import (
    ConfigError,
    Problem,
    accounts_of,
    cleaned,
    from_home,
    plain_text,
    problems_of,
    read_dotenv,
    refuse_folder,
)

__all__ = ["Account", "ConfigError", "Settings", "load_settings"]

EMULATOR_URL = "http://127.0.0.1:8090"
EMULATOR_KEY = "sk_test_0123456789abcdef0123456789abcdef"
EMULATOR_WEBHOOK_SECRET = "whsec_test_0123456789abcdef0123456789abcdef"  # noqa: S105 - the emulator's, public
PROVIDER_URL = "https://api.cloro.dev"


WEBHOOK_PATH = "/webhooks/cloro"
DEFAULT_ACCOUNT = "default"
SECRETS = ("cloro_webhook_secret", "notice_secret", "webhook_secret")
"""Several, comma-separated, and in a file perhaps each on a line of its own."""
ACCOUNT_NAME = "^[a-z0-9][a-z0-9_-]{0,31}$"
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
BODY_BYTES_MAX = 64 * 1024 * 1024
"""No body is read back from the database that unpacks to more."""
CREDITS_MAX = 1_000_000_000_000
"""Credits are whole millionths in 63 bits, and sums of them must be too."""
RATE_PER_HOUR_MAX = 36_000_000
"""10,000 a second."""


@dataclass(frozen=True, slots=True)
class Account:
    """One API key of the provider's, with everything that belongs to it."""

    name: str
    api_key: str = field(repr=False)
    base_url: str
    webhook_secrets: tuple[str, ...] = field(repr=False)
    """Current secret first; several while rotating (P8)."""
    webhook_url: str
    """Where the provider delivers; each account has its own, because each has its own secret."""
    rate_per_s: float
    rate_per_hour: int | None
    budget_per_month: Decimal | None
    """Credits of all runs begun in a calendar month (UTC), at most; None: no limit."""


class AccountSettings(BaseModel):
    """A further account, as it stands in TALLYHOOK_ACCOUNTS."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    api_key: SecretStr
    webhook_secret: SecretStr = SecretStr("")
    """Several, comma-separated, while rotating."""
    base_url: str = PROVIDER_URL
    rate_per_s: float | None = Field(None, gt=0, le=10_000)
    rate_per_hour: int | None = Field(None, ge=1, le=RATE_PER_HOUR_MAX)
    budget_per_month: Decimal | None = Field(None, gt=0, le=CREDITS_MAX, decimal_places=6)

    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            # It would be read as 1.
            raise ValueError("is true or false, where a text or a number belongs: write that")
        cleaned = _checked(value, info.field_name or "")
        if info.field_name == "api_key" and cleaned == "":
            raise ValueError("is empty: add the key")
        return cleaned


class Settings(BaseSettings):
    """Everything that can be set. With nothing set, all runs embedded: a SQLite file, a Valkey from its
    wheel, the emulator."""

    model_config = SettingsConfigDict(
        env_prefix="TALLYHOOK_",
        env_file=".env",
        env_file_encoding="utf-8-sig",
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    # Names that the ecosystem already has.
    database_url: str = Field("", repr=False, validation_alias="DATABASE_URL")
    database_direct_url: str = Field("", repr=False, validation_alias="DATABASE_DIRECT_URL")
    """Where `tallyhook migrate` goes instead, past a pooler; the role may be another."""
    redis_url: str = Field("", repr=False, validation_alias="REDIS_URL")
    port: int = Field(8080, validation_alias="PORT", ge=0, le=65535)
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    cloro_api_key: SecretStr = Field(SecretStr(""), validation_alias="CLORO_API_KEY")
    cloro_base_url: str = Field("", validation_alias="CLORO_BASE_URL")
    cloro_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), validation_alias="CLORO_WEBHOOK_SECRET"
    )

    # Ours.
    accounts: Annotated[dict[Annotated[str, Field(pattern=ACCOUNT_NAME)], AccountSettings], NoDecode] = {}
    """Further API keys by name, as JSON: {"eu": {"api_key": "…", "webhook_secret": "…"}}. The key of
    CLORO_API_KEY is the account `default`."""
    http_proxy: SecretStr = Field(SecretStr(""), validation_alias="HTTP_PROXY")
    https_proxy: SecretStr = Field(SecretStr(""), validation_alias="HTTPS_PROXY")
    """By which forward proxy the provider, and whoever gets notices, are reached: http://USER:PASSWORD@HOST:PORT.
    This machine itself never is."""
    no_proxy: str = Field("", validation_alias="NO_PROXY")
    """Who is reached without: domains with all below them, addresses, networks, with a port or without."""
    ca_file: str = ""
    """Certificates (PEM) that are trusted besides the system's, for the provider and whoever gets notices."""
    host: str = "127.0.0.1"
    data_dir: Path = Path(".tallyhook")
    """Where the embedded database and queue keep their files."""
    log_format: str = Field("auto", pattern="^(auto|json|console)$")
    """auto: readable on a terminal, JSON elsewhere."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    drain_delay_s: float = Field(0.0, ge=0, le=HOUR_S)
    """After SIGTERM `web` is not ready, and takes deliveries for so long yet, for a load balancer to notice:
    two or three of its probes. Then it needs up to 19 s to end; the orchestrator's grace must hold both."""
    share_port: bool = False
    """Several web processes listen on one port (SO_REUSEPORT). Off, so that a port taken by mistake shows."""
    allow_unsigned: bool = False
    """Accept deliveries without verifying them. Only for a provider account without signing (P7)."""

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
    """Requests open at once: 500/s at 100 ms an answer need 50."""
    claim_size: int = Field(250, ge=1, le=5_000)
    """Tasks claimed at once: half a second's worth at full rate."""
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

    # Notices.
    notice_url: str = Field("", repr=False)
    """Where notices are posted to; unset: they go to the log only."""
    notice_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """whsec_<base64>; several, comma-separated, while the receiver changes it: each signs."""
    notice_tries_max: int = Field(12, ge=1, le=30)
    """5 s, 20 s, 80 s, … at most 12 h apart: twelve tries take 28 to 56 hours."""
    notice_timeout_s: float = Field(15.0, gt=0, le=60)
    notice_every_s: float = Field(5.0, gt=0, le=HOUR_S)
    """How often a worker looks for notices to write, and for what is to be sent."""
    notice_size: int = Field(10, ge=1, le=100)
    """Notices tried at once; a turn takes no longer than one request may."""
    forecast_every_s: float = Field(60.0, gt=0, le=DAY_S)
    """How often the warnings of the forecast are looked at; the balance lags as much (P11)."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_set(cls, values: Any) -> Any:
        return {
            name: value
            for name, value in values.items()
            if not (isinstance(value, str) and not value.strip())
        }

    @field_validator("accounts", mode="before")
    @classmethod
    def _read_accounts(cls, value: Any) -> Any:
        return accounts_of(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.waiting_bytes_max < self.body_bytes_max:
            raise ValueError(
                "TALLYHOOK_WAITING_BYTES_MAX is below TALLYHOOK_BODY_BYTES_MAX, so the largest allowed body "
                "could never be taken: raise the first or lower the second"
            )
        if "data_dir" in self.model_fields_set and not (self.database_url and self.redis_url):
            # Where it is not set, commands that need none of it shall run in a directory that is read-only.
            refuse_folder(self.data_dir, "TALLYHOOK_DATA_DIR")
        for url in [account.base_url for account in self.all_accounts().values()] + [self.notice_url]:
            # Many machines name proxies that are none of ours to judge where nobody is reached by them.
            name, proxy = self._proxy_of(url)
            if url and proxy and not goes_straight(url, self.no_proxy):
                try:
                    proxy_parts(proxy)
                except AddressError as error:
                    raise ValueError(f"{name} {error}") from None
        return self

    def _proxy_of(self, url: str) -> tuple[str, str]:
        """(the variable, what it says)."""
        plain = url.startswith("http://")
        proxy = self.http_proxy if plain else self.https_proxy
        return "HTTP_PROXY" if plain else "HTTPS_PROXY", proxy.get_secret_value()

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

    # Before all others: of validators that come before, the last one here is asked first.
    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return _checked(value, info.field_name or "")

    @property
    def embedded_provider(self) -> bool:
        """No key is set: the local emulator stands in for the provider."""
        return not self.cloro_api_key.get_secret_value()

    @property
    def outbound(self) -> Outbound:
        """How requests leave this machine."""
        return Outbound(
            self.http_proxy.get_secret_value(),
            self.https_proxy.get_secret_value(),
            self.no_proxy,
            self.ca_file,
        )

    @property
    def webhook_url(self) -> str:
        """Where the provider delivers for the default account."""
        base = self.public_url or f"http://{host_in_url(reachable_here(self.host))}:{self.port}"
        return f"{base.rstrip('/')}{WEBHOOK_PATH}"

    def all_accounts(self) -> dict[str, Account]:
        """Every account by name; the default one first."""
        url = EMULATOR_URL if self.embedded_provider else PROVIDER_URL
        secrets = tuple(secret.get_secret_value() for secret in self.cloro_webhook_secret)
        if not secrets and self.embedded_provider:
            secrets = (EMULATOR_WEBHOOK_SECRET,)
        default = Account(
            DEFAULT_ACCOUNT,
            self.cloro_api_key.get_secret_value() or EMULATOR_KEY,
            (self.cloro_base_url or url).rstrip("/"),
            secrets,
            self.webhook_url,
            self.rate_per_s,
            self.rate_per_hour,
            self.budget_per_month,
        )
        return {DEFAULT_ACCOUNT: default} | {
            name: Account(
                name,
                account.api_key.get_secret_value(),
                account.base_url.rstrip("/"),
                _split(account.webhook_secret.get_secret_value()),
                f"{self.webhook_url}/{name}",
                account.rate_per_s or self.rate_per_s,
                account.rate_per_hour,
                account.budget_per_month,
            )
            for name, account in self.accounts.items()
        }

    def doubts(self) -> list[tuple[str, str, str]]:
        """Settings that work and will not go well together: (variable, what of it, remedy)."""
        pairs = (
            ("claim_lease_s", "request_timeout_s", "a slow answer's task is taken for a dead sender's"),
            ("sweep_lease_s", "request_timeout_s", "a second process sweeps while a poll still waits"),
            ("retention_s", "poll_after_s", "tasks are given up before anybody asks for them"),
            ("retention_s", "poll_every_s", "tasks are given up before they are asked for again"),
            ("retention_s", "drain_target_s", "more is sent than finishes before it is deleted"),
            ("sweep_after_s", "wake_delay_s", "the sweep settles what was about to be settled"),
        )
        found = [
            (
                _shown_name(small),
                f"{_shown_name(small)} is shorter than {_shown_name(large)}: {effect}",
                f"set it to more than {getattr(self, large):g}",
            )
            for small, large, effect in pairs
            if getattr(self, small) < getattr(self, large)
        ]
        for name, url in (
            ("DATABASE_URL", self.database_url),
            ("DATABASE_DIRECT_URL", self.database_direct_url),
        ):
            if url:
                found += [
                    (name, f"{name}: {what}", remedy) for what, remedy in read_database_address(url).doubts
                ]
        return found

    def passwords(self) -> list[str]:
        """Of the database and of Redis, as their URLs say them."""
        databases = [url for url in (self.database_url, self.database_direct_url) if url]
        arguments = [read_database_address(url).arguments for url in databases]
        if self.redis_url:
            redis = read_redis_address(self.redis_url)
            arguments += [redis.arguments, redis.sentinel_arguments]
        proxies = [one.get_secret_value() for one in (self.http_proxy, self.https_proxy)]
        passwords = [each.get("password") for each in arguments]
        for proxy in proxies:
            with contextlib.suppress(AddressError):  # one that nobody is reached by
                passwords.append(proxy_parts(proxy)[2])
        return [password for password in passwords if password]

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
        path = str((self.data_dir / "tallyhook.db").absolute())
        for sign in "%?#":  # a directory may be called so, and a URL means something else by it
            path = path.replace(sign, f"%{ord(sign):02X}")
        return self.database_url or f"sqlite:///{path}"


def _split(secrets: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in secrets.split(",") if part.strip())


def _checked(value: Any, name: str) -> Any:
    """A text of the environment's without the blanks around it, and as far as its setting says what it must
    be. Raises ValueError, whose text never quotes it."""
    if not isinstance(value, str):
        return value
    text = cleaned(value, lines=name in ("accounts", *SECRETS))
    if not text:
        return text
    if name in ("cloro_api_key", "api_key"):
        return plain_text(text, "key")
    if name in SECRETS:
        return ",".join(plain_text(part, "secret") for part in _split(text))
    if name in ("database_url", "database_direct_url"):
        address = read_database_address(text)
        if name == "database_direct_url" and address.sqlite_path is not None:
            raise AddressError("names an SQLite file: it is for a PostgreSQL behind a pooler; remove it")
    elif name == "redis_url":
        read_redis_address(text)
    elif name in ("public_url", "cloro_base_url", "base_url"):
        url = read_http_url(text, example="https://HOST" if name == "public_url" else PROVIDER_URL)
        if name == "public_url" and f"{WEBHOOK_PATH}/" in f"{url}/":
            raise AddressError(f"has {WEBHOOK_PATH} in it, which we add ourselves: leave it out")
        return url
    elif name == "notice_url":
        return read_http_url(text, example="https://HOST/PATH", whole=True)
    elif name in ("ca_file", "data_dir"):
        text = from_home(text)
        if name == "ca_file":
            _read_certificates(text)
    elif name == "host":
        return read_host(text)
    return text


def _read_certificates(file: str) -> None:
    """Raises AddressError for a file of none."""
    try:
        ssl.create_default_context(cafile=file)
    except FileNotFoundError:
        raise AddressError("names no file that is there: write the path of a PEM file") from None
    except (OSError, ValueError):
        raise AddressError(
            "names a file that cannot be read as certificates: write the path of a PEM file, which begins "
            "with -----BEGIN CERTIFICATE-----"
        ) from None


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and .env; raises ConfigError that names each wrong setting."""
    dotenv = overrides.get("_env_file", Settings.model_config.get("env_file"))
    if dotenv is not None:
        read_dotenv(Path(str(dotenv)))
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = problems_of(error, _shown_name, AccountSettings.model_fields)
    except SettingsError as error:
        problems = [Problem("settings", f"cannot be read: {error}")]
    # Outside of the handler: what pydantic says quotes what it was given.
    raise ConfigError.of(problems)


def _shown_name(name: str) -> str:
    """The variable of a field, or of what pydantic names instead."""
    if name in known_variables().values():
        return next(variable for variable, field in known_variables().items() if field == name)
    return name


def known_variables() -> Mapping[str, str]:
    """Every variable of ours and the field that it sets."""
    return {
        str(field.validation_alias) if field.validation_alias else f"TALLYHOOK_{name.upper()}": name
        for name, field in Settings.model_fields.items()
    }
