"""Which addresses results may be posted to. Pure.

Whoever may name a URL must not reach what only this machine can: its own services, its network, the metadata
of its cloud. The address that a connection goes to is what is judged, never the name.
"""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # a cloud (Azure) speaks to its own machines there
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100::/64",
        "2001::/23",
        "3fff::/20",
        "5f00::/16",
    )
)
"""Not for the whole internet, though not every Python knows (IANA's registries of special addresses)."""
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def may_post_to(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether a connection to this address is allowed: it is public, or of a network that was named."""
    return is_named(address, allowed) or is_public(address)


def is_named(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether a network was named that it is of, as it stands or as the IPv4 address that it means."""
    meant = _meant(address)
    return any(a.version == n.version and a in n for n in allowed for a in (address, meant))


def is_public(address: Address) -> bool:
    """Whether the whole internet can reach it, so that this machine tells nobody more than they know."""
    meant = _meant(address)
    if is_named(meant, _SPECIAL):
        return False
    is_special = meant.is_multicast or meant.is_reserved or meant.is_unspecified or meant.is_link_local
    if isinstance(meant, ipaddress.IPv6Address):
        is_special = is_special or meant.is_site_local or meant in _IPV4_COMPATIBLE
    return meant.is_global and not is_special


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
