"""Addresses of HTTP servers: the provider's, our own as the provider reaches it, a proxy's."""

import contextlib
import ipaddress
import socket
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from app.address.split import PORT_MAX, AddressError

HOST_CHARS_MAX, LABEL_CHARS_MAX = 254, 63
"""With a dot at the end (RFC 1035)."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """How requests leave this machine, as it is set: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, TALLYHOOK_CA_FILE."""

    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    ca_file: str = ""


def read_http_url(url: str, *, example: str, whole: bool = False) -> str:
    """The URL without a slash at its end, unless it is taken as a whole. Raises AddressError; the text never
    quotes it, because a token may stand in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError(f"has a host or port that is none: write {example}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressError(f"is not an http address: write {example}")
    if not _may_be_name(host):
        raise AddressError(f"has a host that no name server can know: write {example}")
    if port is not None and not 0 < port <= PORT_MAX:
        raise AddressError(f"has a port that is not from 1 to {PORT_MAX}: write {example}")
    if parts.username is not None or parts.password is not None:
        raise AddressError(f"has a user or password in it, which would be logged: write {example}")
    if not whole and ("?" in url or "#" in url):
        raise AddressError(f"has a ? or # in it, and we add a path: write {example}")
    if any(char.isspace() for char in url) or not host.isprintable():
        raise AddressError(f"has a blank in it: write {example}")
    return url if whole else url.rstrip("/")


def _may_be_name(host: str) -> bool:
    """By its length and that of its parts, which DNS bounds; an address may be too."""
    parts = host.removesuffix(".").split(".")
    return len(host) <= HOST_CHARS_MAX and all(0 < len(part) <= LABEL_CHARS_MAX for part in parts)


def proxy_parts(url: str) -> tuple[str, str | None, str | None]:
    """(the proxy's URL without a user, user, password). Raises AddressError."""
    example = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() != "http":
        raise AddressError(
            f"names a proxy that does not begin with http://, the only kind we speak to: write {example}, "
            "which carries https by CONNECT"
        )
    # curl and many others take a proxy without its scheme.
    userinfo, at, place = (rest if mark else url).rpartition("@")
    plain = read_http_url(f"http://{place}", example=example)
    if not at:
        return plain, None, None
    user, _, password = userinfo.partition(":")
    return plain, unquote(user), unquote(password)


def goes_straight(url: str, no_proxy: str) -> bool:
    """Whether no proxy is asked: for this machine itself, and for what NO_PROXY names."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host)
    if host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback):
        return True
    return any(_names(entry, host, port, address) for entry in no_proxy.replace(",", " ").lower().split())


def read_networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks and addresses, separated by commas or blanks. Raises AddressError."""
    networks = []
    for entry in text.replace(",", " ").split():
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            raise AddressError(
                "has something in it that is no network: write addresses or networks, such as "
                "10.1.0.0/16,127.0.0.1"
            ) from None
    return tuple(networks)


def written_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is as it stands, as whoever connects reads it: 2130706433, 0x7f.1 and
    ①②⑦。0。0。1 are some too. None: it is a name."""
    host = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    with contextlib.suppress(OSError, UnicodeError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return _address(host.strip("[]"))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _names(entry: str, host: str, port: int, address: _Address | None) -> bool:
    """Whether an entry of NO_PROXY is about a host: `*`, a domain with all below it, an address, a network;
    each but the network with a port or without."""
    if entry == "*":
        return True
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        return address is not None and address in network
    entry, colon, wanted = entry.rpartition(":") if ":" in entry else (entry, "", "")
    if colon and wanted != str(port):
        return False
    domain = entry.strip("[]").removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(host: str) -> _Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None
