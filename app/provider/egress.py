"""How a request leaves this machine: straight or by a forward proxy, and whose certificates are believed.

aiohttp's own `trust_env` is not used: it takes credentials from ~/.netrc in place of ours, and knows no ports
and no networks in NO_PROXY.
"""

import base64
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from app.address.web import Outbound, goes_straight, proxy_parts


@dataclass(frozen=True, slots=True)
class Egress:
    """The way to one server."""

    proxy: str | None = None
    """Its URL, without a user; None: straight."""
    login: str | None = field(default=None, repr=False)
    """USER:PASSWORD of the proxy."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """None: what the system believes, or SSL_CERT_FILE."""
    plain: bool = False
    """The server speaks no TLS: the proxy is asked for the page itself and not for a tunnel."""

    def connector(self, **arguments: Any) -> aiohttp.TCPConnector:
        """Of a session's connections."""
        return aiohttp.TCPConnector(ssl=self.tls if self.tls is not None else True, **arguments)

    def how(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Arguments of a request: its headers and its way. A session has no headers of its own: aiohttp would
        tell them to the proxy, the API key with them."""
        if self.proxy is None:
            return {"headers": headers}
        if self.plain:
            # The proxy reads the request itself, and takes its own header away.
            return {"headers": {**headers, **self._login()}, "proxy": self.proxy}
        return {"headers": headers, "proxy": self.proxy, "proxy_headers": self._login()}

    def _login(self) -> dict[str, str]:
        if self.proxy is None or self.login is None:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(self.login.encode()).decode()}"}


STRAIGHT = Egress()
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)
"""No connection to the server, or no tunnel to it: it has nothing of the request."""


def egress_to(outbound: Outbound, url: str) -> Egress:
    """How requests go to a URL."""
    plain = url.startswith("http://")
    tls = None if plain else _context(outbound.ca_file)
    proxy = outbound.http_proxy if plain else outbound.https_proxy
    if not proxy or goes_straight(url, outbound.no_proxy):
        return Egress(tls=tls, plain=plain)
    place, user, password = proxy_parts(proxy)
    return Egress(place, None if user is None else f"{user}:{password or ''}", tls, plain)


@functools.cache
def _context(ca_file: str) -> ssl.SSLContext | None:
    """The system's certificates and those of the file; one for all sessions, which takes 10 ms to make."""
    if not ca_file:
        return None
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    return context
