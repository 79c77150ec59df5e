"""Settings from the environment, read once: where things are and the keys to them here, limits in limits.py.
Names that the ecosystem has are bare; ours begin with TALLYHOOK_.
"""

import contextlib
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, get_args

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

from app.address import AddressError, read_database_address, read_objects_address, read_redis_address
from app.address.listening import LOOPBACK, host_in_url, reachable_here, read_host
from app.address.web import Outbound, goes_straight, proxy_parts, read_http_url, read_networks
from app.limits import (
    CREDITS_MAX,
    HOUR_S,
    RATE_PER_HOUR_MAX,
    ApiLimits,
    Limits,
    NoticeLimits,
    RelayLimits,
    RetentionLimits,
)
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
    unknown_variables,
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
FURTHER_DATABASES = {
    "database_direct_url": "a PostgreSQL behind a pooler",
    "database_read_url": "a standby of a PostgreSQL",
}
"""Of the same tables, with what each is for."""
ACCOUNT_NAME = "^[a-z0-9][a-z0-9_-]{0,31}$"


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


class Environment(BaseModel):
    """Where things are, and the keys to them."""

    # Names that the ecosystem already has.
    database_url: str = Field("", repr=False, validation_alias="DATABASE_URL")
    database_direct_url: str = Field("", repr=False, validation_alias="DATABASE_DIRECT_URL")
    """Where `tallyhook migrate` goes instead, past a pooler; the role may be another."""
    database_read_url: str = Field("", repr=False, validation_alias="DATABASE_READ_URL")
    """A streaming standby: where reports, exports and the API's lists are read, a moment behind."""
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
    api_host: str = LOOPBACK
    """Where the API listens: this machine alone, unless a network that is trusted, or a proxy with TLS, is
    meant to reach it."""
    api_port: int = Field(8081, ge=0, le=65535)
    api_names: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names, comma-separated, by which agents reach /mcp, besides addresses and localhost. A page in
    somebody's browser may have bent any other name to this machine."""
    page_hide_prompts: bool = False
    """The page shows no prompt and no answer, for those that are confidential; the API gives both."""
    data_dir: Path = Path(".tallyhook")
    """Where the embedded database and queue keep their files."""
    archive_url: str = ""
    """Where bodies of days that are over are archived before they are pruned: a folder, s3://BUCKET/PREFIX,
    gs://BUCKET/PREFIX or az://CONTAINER/PREFIX. Unset: nowhere."""
    log_format: str = Field("auto", pattern="^(auto|json|console)$")
    """auto: readable on a terminal, JSON elsewhere."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    metrics_host: str = LOOPBACK
    """Where each process shows its metrics and probes: this machine alone, unless a network that is trusted
    is meant to reach it. They ask for no token."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """Each process takes this port, or the next free one, and says which; 0 picks any. Unset: none."""
    public_metrics: bool = False
    """`web` shows its metrics in its public port as well, to everybody who reaches that."""
    traces: bool = False
    """Make spans of what is done and send them to where OTEL_EXPORTER_OTLP_ENDPOINT says, by the extra
    tallyhook[otel]."""
    heartbeat_file: str = ""
    """A worker touches this file every 5 s while all its tasks run, for an orchestrator that asks no port."""
    drain_delay_s: float = Field(0.0, ge=0, le=HOUR_S)
    """After SIGTERM `web` is not ready, and takes deliveries for so long yet, for a load balancer to notice:
    two or three of its probes. Then it needs up to 19 s to end; the orchestrator's grace must hold both."""
    share_port: bool = False
    """Several web processes listen on one port (SO_REUSEPORT). Off, so that a port taken by mistake shows."""
    allow_unsigned: bool = False
    """Accept deliveries without verifying them. Only for a provider account without signing (P7)."""


class NoticeAddress(BaseModel):
    """Where notices go."""

    notice_url: str = Field("", repr=False)
    """Where notices are posted to; unset: they go to the log only."""
    notice_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """whsec_<base64>; several, comma-separated, while the receiver changes it: each signs."""


class RelayNetworks(BaseModel):
    """Where results may be pushed to."""

    relay_private_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Networks or addresses, comma-separated, that results may be posted to though they are private, and by
    http://. Unset: none."""


class Settings(
    RetentionLimits,
    RelayLimits,
    NoticeLimits,
    NoticeAddress,
    RelayNetworks,
    ApiLimits,
    Limits,
    Environment,
    BaseSettings,
):
    """Everything that can be set. With nothing set, all runs embedded: a SQLite file, a Valkey from its
    wheel, the emulator. Of several wrong settings those of the last base are named first."""

    model_config = SettingsConfigDict(
        env_prefix="TALLYHOOK_",
        env_file=".env",
        env_file_encoding="utf-8-sig",
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

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

    @field_validator("relay_private_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return read_networks(value) if isinstance(value, str) else value

    @field_validator("api_names", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = _split(value.lower())
        if not all(_HOST_NAME.fullmatch(name) for name in names):
            raise ValueError("has a name in it that is none: write names alone, without http:// or a port")
        return names

    # Before all others: of validators that come before, the last one here is asked first.
    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if isinstance(value, str) and "_" in value and _is_number(cls.model_fields[name].annotation):
            raise ValueError("has a _ in its number: write digits only")
        return _checked(value, name)

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
        return f"{self.address_at(self.port)}{WEBHOOK_PATH}"

    def address_at(self, port: int) -> str:
        """Where the provider reaches `web` that listens on a port of this machine; without our path."""
        base = self.public_url or f"http://{host_in_url(reachable_here(self.host))}:{port}"
        return base.rstrip("/")

    def reached_at(self, address: str) -> "Settings":
        """The same with another address of `web`."""
        return self.model_copy(update={"public_url": address})

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

    def keep_days(self) -> dict[str, int]:
        """Kind of rows (`domain.retention.Kind`) -> days that they are kept; without those that are kept for
        ever."""
        days = {name: getattr(self, name) for name in RetentionLimits.model_fields}
        return {
            name.removeprefix("keep_").removesuffix("_days"): kept
            for name, kept in days.items()
            if kept is not None
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
            ("DATABASE_READ_URL", self.database_read_url),
        ):
            if url:
                found += [
                    (name, f"{name}: {what}", remedy) for what, remedy in read_database_address(url).doubts
                ]
        return found

    def passwords(self) -> list[str]:
        """Of the database and of Redis, as their URLs say them."""
        named = (self.database_url, self.database_direct_url, self.database_read_url)
        databases = [url for url in named if url]
        arguments = [read_database_address(url).arguments for url in databases]
        if self.redis_url:
            redis = read_redis_address(self.redis_url)
            arguments += [redis.arguments, redis.sentinel_arguments]
        proxies = [proxy.get_secret_value() for proxy in (self.http_proxy, self.https_proxy)]
        passwords = [parsed.get("password") for parsed in arguments]
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


def _is_number(annotation: Any) -> bool:
    return not {int, float, Decimal}.isdisjoint({annotation, *get_args(annotation)})


_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


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
    if name in ("database_url", *FURTHER_DATABASES):
        address = read_database_address(text)
        if name in FURTHER_DATABASES and address.sqlite_path is not None:
            raise AddressError(f"names an SQLite file: it is for {FURTHER_DATABASES[name]}; remove it")
    elif name == "redis_url":
        read_redis_address(text)
    elif name in ("public_url", "cloro_base_url", "base_url"):
        url = read_http_url(text, example="https://HOST" if name == "public_url" else PROVIDER_URL)
        if name == "public_url" and f"{WEBHOOK_PATH}/" in f"{url}/":
            raise AddressError(f"has {WEBHOOK_PATH} in it, which we add ourselves: leave it out")
        return url
    elif name == "archive_url":
        read_objects_address(text)
    elif name == "notice_url":
        return read_http_url(text, example="https://HOST/PATH", whole=True)
    elif name in ("ca_file", "data_dir", "heartbeat_file"):
        text = from_home(text)
        if name == "ca_file":
            _read_certificates(text)
    elif name in ("host", "api_host", "metrics_host"):
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


def unknown_settings() -> list[tuple[str, str]]:
    """Variables of the environment and of .env that look like ours and that nobody reads, each with what to
    do. Raises ConfigError."""
    names = [*os.environ, *read_dotenv(Path(".env"))]
    return [
        (name, f"did you mean {meant}?" if meant else "remove it, or look its name up in app/config.py")
        for name, meant in unknown_variables(names, known_variables())
    ]
