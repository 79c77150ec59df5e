"""What the doctor says of settings, as far as they can be judged without asking anybody."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from app.address.web import goes_straight
from app.cli.doctor.check import Check
from app.config import Settings, unknown_settings
from app.settings_text import ConfigError, Problem, read_dotenv

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared, not bound


def wrong_settings(error: ConfigError) -> list[Check]:
    """What keeps every command from beginning: each wrong setting by its name."""
    problems = error.problems or (Problem("settings", str(error)),)
    return [Check(problem.setting, "fault", *problem.parted()) for problem in problems]


def check_settings(settings: Settings) -> list[Check]:
    """Variables that nobody reads, and settings that do not go well together."""
    names = [*os.environ, *read_dotenv(Path(".env"))]
    found = [
        Check(name, "warning", f"{name} is no setting of this version", remedy)
        for name, remedy in unknown_settings()
    ]
    found += _unread_proxies(settings, {name.upper() for name in names})
    return found + [Check(name, "warning", what, remedy) for name, what, remedy in settings.doubts()]


def _unread_proxies(settings: Settings, names: Collection[str]) -> list[Check]:
    """Proxies that other programs would take, where the provider is reached without one."""
    read = "HTTP_PROXY" if settings.base_url.startswith("http://") else "HTTPS_PROXY"
    if read in names or goes_straight(settings.base_url, settings.no_proxy):
        return []
    remedy = f"set {read} to http://HOST:PORT where requests must go by a proxy, else NO_PROXY"
    return [
        Check(name, "warning", f"{name} is not read: {settings.base_url} is reached without a proxy", remedy)
        for name in ("ALL_PROXY", "SOCKS_PROXY")
        if name in names
    ]


def check_configuration(settings: Settings, receivers: Sequence[str] = ()) -> list[Check]:
    """Key, secret and public address, as far as they can be judged without asking anybody."""
    if settings.embedded_provider:
        key = Check(
            "API key", "ok", "CLORO_API_KEY is not set: the local emulator stands in for the provider"
        )
    else:
        key = Check("API key", "ok", f"set, for {settings.base_url}")
    public_url = _check_public_url(settings, receivers)
    return [key, _check_secret(settings), public_url, *_check_receivers(settings, receivers)]


def in_which_file() -> str:
    """Where a setting is written; not said where there is such a file."""
    return "" if Path(".env").exists() else "; tallyhook init writes a .env to set it in"


def _check_secret(settings: Settings) -> Check:
    name, count = "webhook secret", len(settings.webhook_secrets)
    if settings.allow_unsigned:
        remedy = "switch signing on at the provider, set CLORO_WEBHOOK_SECRET, unset TALLYHOOK_ALLOW_UNSIGNED"
        return Check(name, "warning", "TALLYHOOK_ALLOW_UNSIGNED: anybody can send us deliveries", remedy)
    if not count:
        remedy = "set CLORO_WEBHOOK_SECRET to the signing secret that the provider's dashboard shows"
        remedy += in_which_file()
        return Check(name, "fault", "CLORO_WEBHOOK_SECRET is not set; web will not start", remedy)
    if not settings.cloro_webhook_secret:
        return Check(name, "ok", "the emulator's, which everybody knows")
    return Check(name, "ok", "set" if count == 1 else f"{count} set, as while rotating")


def _check_public_url(settings: Settings, receivers: Sequence[str]) -> Check:
    name, remedy = "public URL", "set PUBLIC_URL to the https address at which the provider reaches web"
    remedy += in_which_file()
    url = settings.public_url or next(iter(receivers), settings.address_at(settings.port))
    says = "" if settings.public_url or not receivers else ", as web says"
    if settings.embedded_provider and not settings.public_url:
        return Check(name, "ok", f"not needed for the emulator; deliveries go to {url}{says}")
    parts = urlsplit(url)
    if settings.embedded_provider:
        return Check(name, "ok", url)
    if parts.hostname in LOOPBACK_HOSTS:
        unset = "nobody but this machine can reach" if settings.public_url else "PUBLIC_URL is not set, and"
        there = "" if settings.public_url else f"{says} is this machine"
        return Check(name, "fault", f"{unset} {url}{there}", remedy)
    if parts.scheme == "http":
        return Check(name, "warning", f"{url} is not encrypted", remedy)
    return Check(name, "ok", f"{url}{says}")


def _check_receivers(settings: Settings, receivers: Sequence[str]) -> list[Check]:
    """Workers send the provider to the PUBLIC_URL of their own; no line where no `web` says another one."""
    if not settings.public_url or not receivers or settings.public_url.rstrip("/") in receivers:
        return []
    detail = f"PUBLIC_URL is {settings.public_url} here, and web says that it is at {', '.join(receivers)}"
    remedy = "give web and every worker the same PUBLIC_URL, and start them again"
    return [Check("address of web", "warning", detail, remedy)]
