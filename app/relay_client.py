"""Posts messages of the relay: one request, one answer, never repeated here.

Whoever submits a run names the URL, so it is a stranger's: the address that a connection goes to is judged
when it is made, which a name that resolves otherwise a moment later does not change. Redirects are not
followed, no cookie is kept, and of an answer no more is read than lets its connection be used again.
"""

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from app.address.web import Outbound, written_address
from app.config import Settings
from app.domain.notices.notice import Answered
from app.domain.relay.addresses import Network, is_named, may_post_to
from app.provider.egress import Egress, egress_to
from app.provider.wire import read_error

ANSWER_BYTES_MAX = 64 * 1024
"""Of a body that is read and dropped; a connection with a longer one is closed."""
ANSWER_S = 2.0
"""For that body: how the post ended is known by then."""
KEEPALIVE_S = 30.0
REFUSED = "its address is private, see TALLYHOOK_RELAY_PRIVATE_NETWORKS"
REFUSED_PLAIN = "http:// is for networks of TALLYHOOK_RELAY_PRIVATE_NETWORKS only, others need https://"


class AddressRefusedError(OSError):
    """No connection is made to this address."""


class RelayClient:
    """Posts to any number of endpoints. An async context manager."""

    def __init__(self, *, allowed: Sequence[Network], outbound: Outbound, timeout_s: float) -> None:
        """`allowed`: networks that may be posted to though they are private."""
        self._allowed = tuple(allowed)
        self._outbound = outbound
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}
        self._way = functools.lru_cache(maxsize=1_000)(lambda url: egress_to(self._outbound, url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """One try. Never raises for what the receiver does."""
        egress = self._way(url)
        try:
            self._refuse_behind_proxy(url, egress)
            session = self._session(egress)
            headers = {"Content-Type": "application/json", "User-Agent": "tallyhook", **headers}
            async with session.post(url, data=body, allow_redirects=False, **egress.how(headers)) as response:
                await _discard(response)
                wait_s = None
                if response.status >= 300:
                    wait_s = read_error(response.status, response.headers, b"").wait_s
                return Answered(response.status, None if wait_s is None else round(wait_s * 1000))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answered(None, error=_kind_of(error))

    def _session(self, egress: Egress) -> aiohttp.ClientSession:
        """Whose connections go the same way; each is kept for the next post to the same host."""
        key = egress.plain, egress.proxy is not None
        if key not in self._sessions:
            how: dict[str, Any] = {} if egress.proxy else {"socket_factory": self._guard(plain=egress.plain)}
            self._sessions[key] = aiohttp.ClientSession(
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                # How many there are is bounded by whoever posts.
                connector=egress.connector(limit=0, keepalive_timeout=KEEPALIVE_S, **how),
            )
        return self._sessions[key]

    def _guard(self, *, plain: bool) -> Any:
        def open_socket(info: Any) -> socket.socket:
            family, kind, protocol, _, place = info
            self._refuse(ipaddress.ip_address(place[0].partition("%")[0]), plain=plain)
            opened = socket.socket(family, kind, protocol)
            opened.setblocking(False)
            return opened

        return open_socket

    def _refuse(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, plain: bool) -> None:
        if plain and not is_named(address, self._allowed):
            raise AddressRefusedError(REFUSED_PLAIN if may_post_to(address, ()) else REFUSED)
        if not may_post_to(address, self._allowed):
            raise AddressRefusedError(REFUSED)

    def _refuse_behind_proxy(self, url: str, egress: Egress) -> None:
        """A proxy makes the connection, and looks names up itself: it is where those are judged. What is an
        address as it stands is judged here too."""
        if egress.proxy is None:
            return
        address = written_address(urlsplit(url).hostname or "")
        if address is not None:
            self._refuse(address, plain=egress.plain)


async def _discard(response: aiohttp.ClientResponse) -> None:
    """Read the body to its end, so that the connection serves again; else close it."""
    size = 0
    try:
        async with asyncio.timeout(ANSWER_S):
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > ANSWER_BYTES_MAX:
                    break
            else:
                return
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    response.close()


def _kind_of(error: BaseException) -> str:
    """What failed. Not the text, which could quote the URL, and that may hold a token."""
    text = f"{error} {getattr(error, 'os_error', '')}"
    for refusal in (REFUSED_PLAIN, REFUSED):
        if refusal in text:
            return refusal
    return type(error).__name__


def open_relay_client(settings: Settings) -> RelayClient:
    """The client as configured."""
    return RelayClient(
        allowed=settings.relay_private_networks,
        outbound=settings.outbound,
        timeout_s=settings.relay_timeout_s,
    )
