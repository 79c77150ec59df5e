"""Sends a notice over HTTP, signed by Standard Webhooks: one request, one answer, never repeated here.

The URL is the operator's own setting: it may be on a private network. Redirects are not
followed, no cookie is kept, the proxy is the one that is set, and no more of an answer is read than its head.
"""

from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from app.config import ConfigError, Settings
from app.domain.notices.notice import Answered, NoticeSecretError, signature_of, signing_key
from app.provider.egress import STRAIGHT, Egress, egress_to
from app.provider.wire import read_error


class NoticeClient:
    """Posts notices to one URL. An async context manager."""

    def __init__(
        self, url: str, keys: tuple[bytes, ...], *, timeout_s: float, egress: Egress = STRAIGHT
    ) -> None:
        self.url = url
        self._egress = egress
        self._keys = keys
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            connector=self._egress.connector(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, notice_id: str, at_s: int, body: bytes) -> Answered:
        """One try; `at_s` is its time, in seconds since 1970. Never raises for what the receiver does."""
        assert self._session is not None, "use the client as a context manager"  # noqa: S101
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tallyhook",
            "webhook-id": notice_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature_of(self._keys, notice_id, at_s, body),
        }
        try:
            async with self._session.post(
                self.url, data=body, allow_redirects=False, **self._egress.how(headers)
            ) as response:
                response.close()  # its body is not read, however long it is
                wait_s = read_error(response.status, response.headers, b"").wait_s
                return Answered(response.status, None if wait_s is None else round(wait_s * 1000))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The kind alone: the text could quote the URL, which may hold a token.
            return Answered(None, error=type(error).__name__)


def open_notice_client(settings: Settings) -> NoticeClient | None:
    """The client as configured; None: notices go to the log only. Raises ConfigError, also for a secret
    without a URL to use it on."""
    secrets = [secret.get_secret_value() for secret in settings.notice_secret]
    if not settings.notice_url:
        if secrets:
            raise ConfigError("TALLYHOOK_NOTICE_SECRET is set, but TALLYHOOK_NOTICE_URL is not: set both")
        return None
    try:
        parts = urlsplit(settings.notice_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            "TALLYHOOK_NOTICE_URL cannot be posted to: write https://HOST/PATH, without a user or password"
        )
    if not secrets:
        raise ConfigError(
            "TALLYHOOK_NOTICE_SECRET is not set, so a receiver could not tell our notices from others': "
            "write it as whsec_ and the base64 of 24 to 64 random bytes"
        )
    try:
        keys = tuple(signing_key(secret) for secret in secrets)
    except NoticeSecretError as error:
        raise ConfigError(f"TALLYHOOK_NOTICE_SECRET {error}") from error
    return NoticeClient(
        settings.notice_url,
        keys,
        timeout_s=settings.notice_timeout_s,
        egress=egress_to(settings.outbound, settings.notice_url),
    )
