"""The way out as it is set: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, TALLYHOOK_CA_FILE."""

import functools
import ssl

from app.address.web import goes_straight, proxy_parts
from app.config import Settings
from app.provider.egress import Egress


def egress_to(settings: Settings, url: str) -> Egress:
    """How requests go to a URL."""
    plain = url.startswith("http://")
    tls = None if plain else _context(settings.ca_file)
    said = settings.http_proxy if plain else settings.https_proxy
    proxy = said.get_secret_value()
    if not proxy or goes_straight(url, settings.no_proxy):
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
