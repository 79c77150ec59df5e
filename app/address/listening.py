"""The address that a process of ours listens on: its socket, and how it is written in a URL."""

import errno
import ipaddress
import socket
from urllib.parse import urlsplit

from app.address.split import AddressError

ANY_IPV6 = "::"
ANYWHERE = frozenset({"", "0.0.0.0", ANY_IPV6})  # noqa: S104 - what users may set
LOOPBACK = "127.0.0.1"


def host_in_url(host: str) -> str:
    """A host as it stands in a URL: IPv6 in brackets (RFC 3986)."""
    return f"[{host}]" if ":" in host else host


def host_from_here(host: str) -> str:
    """By which this machine itself reaches what listens on a host: for all addresses, loopback."""
    if host == ANY_IPV6:
        return "::1"
    return LOOPBACK if host in ANYWHERE else host


def url_from_here(url: str) -> str:
    """The URL of what listens, as this machine itself reaches it."""
    parts = urlsplit(url)
    host = host_in_url(host_from_here(parts.hostname or ""))
    return parts._replace(netloc=f"{host}:{parts.port}").geturl()


def read_host(text: str) -> str:
    """An address or a name to listen on, without brackets. Raises AddressError."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressError(
                "is no host: write an address or a name alone, such as 0.0.0.0, and the port into PORT"
            ) from None
        return host
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host or any(char in "/@?#* " for char in host):
        raise AddressError("is no host: write an address or a name alone, such as 0.0.0.0")
    return host


def listening_remedy(error: OSError) -> str:
    """What to do where nobody can listen."""
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
        return "set TALLYHOOK_HOST to an address of this machine, such as 127.0.0.1, or to 0.0.0.0 for all"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "set PORT to one above 1023, with a proxy before it; lower ones are the system's "
            "(net.ipv4.ip_unprivileged_port_start, or CAP_NET_BIND_SERVICE)"
        )
    return "set PORT to a free one, or end what listens there"


def reachable_here(host: str) -> str:
    """What somebody on this machine connects to, for one who listens on `host`."""
    return LOOPBACK if host in ANYWHERE else host


def both_stacks(host: str, port: int, *, backlog: int, share_port: bool) -> socket.socket | None:
    """A listening socket for IPv6 and IPv4 together, where `host` is `::`; None for any other, which the
    event loop listens on itself. It would take `::` for IPv6 alone. Raises OSError."""
    if host != ANY_IPV6:
        return None
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6,
        backlog=backlog,
        reuse_port=share_port,
        dualstack_ipv6=socket.has_dualstack_ipv6(),
    )
