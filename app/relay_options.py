"""Where results are to be pushed, as a person says it: checked before anything is stored. Shared by the
command line and the API; draws and prints nothing."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from app.address.split import AddressError
from app.address.web import read_http_url, written_address
from app.config import Settings
from app.domain.notices.notice import NoticeSecretError
from app.domain.relay.addresses import may_post_to
from app.domain.relay.message import NewEndpoint, Scheme, new_secret
from app.domain.relay.signing import refuse_unusable_secret
from app.domain.text import sanitize
from app.errors import USAGE, UserError

URL_CHARS_MAX = 2_000
SECRET_BYTES_MAX = 1_024
EXAMPLE = "https://HOST/PATH"
NETWORKS = "TALLYHOOK_RELAY_PRIVATE_NETWORKS"


def endpoint_option(url: str, secret_file: Path | None, settings: Settings) -> NewEndpoint | None:
    """What --webhook-url and --webhook-secret-file say; None without them. Raises UserError."""
    if not url:
        if secret_file is not None:
            raise _bad("--webhook-secret-file goes with --webhook-url", "say where results are to be posted")
        return None
    problem = refusal_of(url, settings)
    if problem is not None:
        raise _bad(f"--webhook-url {problem[0]}", problem[1])
    if secret_file is None:
        return NewEndpoint(url, new_secret())
    secret = _read_secret(secret_file)
    try:
        refuse_unusable_secret(secret, Scheme.STANDARD)
    except NoticeSecretError as error:
        raise _bad(f"the secret in {sanitize(str(secret_file))} {error}", "") from error
    return NewEndpoint(url, secret, is_secret_given=True)


def refusal_of(url: str, settings: Settings) -> tuple[str, str] | None:
    """(what is wrong with a URL that results are to be posted to, the remedy); None: nothing that can be seen
    before a connection is made, which is when its address is judged."""
    try:
        read_http_url(url, example=EXAMPLE, whole=True)
    except AddressError as error:
        what, _, remedy = str(error).partition(": ")
        return what, remedy
    parts = urlsplit(url)
    if len(url) > URL_CHARS_MAX:
        return f"has {len(url):,} characters", f"use {URL_CHARS_MAX:,} at most"
    if not url.isprintable() or parts.fragment:
        return "has a fragment, or signs that cannot be seen", f"write {EXAMPLE}"
    if parts.scheme == "http" and not settings.relay_private_networks:
        return (
            "begins with http://, which anybody on the way can read",
            f"use https://, or name the receiver's own network in {NETWORKS}",
        )
    address = written_address(parts.hostname or "")
    if address is not None and not may_post_to(address, settings.relay_private_networks):
        return (
            f"names the private address {address}",
            f"workers post there only if {NETWORKS} names it, such as {NETWORKS}={address}",
        )
    return None


def url_without_query(url: str) -> str:
    """As it is shown: the query may hold a token."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _read_secret(path: Path) -> str:
    shown = sanitize(str(path))
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise _bad(
            f"cannot read --webhook-secret-file {shown}: {error.strerror}", "give the path of a file"
        ) from error
    if len(text) > SECRET_BYTES_MAX:
        raise _bad(
            f"--webhook-secret-file {shown} holds more than a secret", "write the secret alone into it"
        )
    return text.decode(errors="replace").strip()


def _bad(message: str, remedy: str) -> UserError:
    return UserError("bad_option", message, remedy, exit_code=USAGE)
