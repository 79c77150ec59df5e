"""Whether a request may come from a page in somebody's browser: a name that was bent to this machine (DNS
rebinding), or another site's origin.
"""

import ipaddress
from collections.abc import Collection, Mapping

from yarl import URL

from app.api.problems import FORBIDDEN, MISDIRECTED, FieldError, Kind, Problem

LOCAL = "localhost"


def refuse_foreign(headers: Mapping[str, str], names: Collection[str]) -> None:
    """Raises Problem for a Host that is neither an address, nor this machine's, nor one of `names`: only a
    name can be bent; and for an Origin of another host."""
    host = _host_of(f"http://{headers.get('Host', '')}")
    if host is None or not (_is_address(host) or host == LOCAL or host in names):
        raise _refused(MISDIRECTED, "Host", "add the name to TALLYHOOK_API_NAMES, or use the address")
    if (origin := headers.get("Origin")) is None:
        return
    from_host = _host_of(origin)
    if from_host is None or not (from_host == host or _is_loopback(from_host)):
        raise _refused(FORBIDDEN, "Origin", "leave it out: no page of another site may call this")


def _refused(kind: Kind, header: str, remedy: str) -> Problem:
    return Problem(
        kind, f"{header}: {remedy}", errors=[FieldError(field=header, code="foreign", remedy=remedy)]
    )


def _host_of(url: str) -> str | None:
    try:
        return URL(url).host
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == LOCAL or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
