"""The address that a process of ours listens on: its socket, and how it is written in a URL."""

import socket

ANY_IPV6 = "::"
ANYWHERE = frozenset({"", "0.0.0.0", ANY_IPV6})  # noqa: S104 - what users may set
LOOPBACK = "127.0.0.1"


def host_in_url(host: str) -> str:
    """A host as it stands in a URL: IPv6 in brackets (RFC 3986)."""
    return f"[{host}]" if ":" in host else host


def reachable_here(host: str) -> str:
    """What somebody on this machine connects to, for one who listens on `host`."""
    return LOOPBACK if host in ANYWHERE else host


def both_stacks(host: str, port: int, *, backlog: int, share_port: bool) -> socket.socket | None:
    """A listening socket for IPv6 and IPv4 together, where `host` is `::`; None for any other, which the
    event loop listens on itself. It would take `::` for IPv6 alone. Raises OSError."""
    if host != ANY_IPV6:
        return None
    return socket.create_server(
        (host, port), family=socket.AF_INET6, backlog=backlog, reuse_port=share_port,
        dualstack_ipv6=socket.has_dualstack_ipv6(),
    )  # fmt: skip
