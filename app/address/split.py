"""The parts of a server's URL.

`urllib` reads a password with a `#`, `/`, `?` or `@` as a fragment, a path, a query or a host, and quotes a
piece of it in its error. Services hand out such passwords unescaped, so here the user's part ends at the last
`@` before the query. Escaped ones mean the same as ever.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from app.quoting import in_quotes

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORT = re.compile(r"[0-9]{1,5}")
_NOT_FILLED_IN = re.compile(r"\$?[\[<{].*pass.*[\]>}]", re.IGNORECASE)
"""As dashboards show it where they do not tell the password: [YOUR-PASSWORD], <password>, ${DB_PASS}."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,39}")
PORT_MAX = 65_535


class AddressError(ValueError):
    """An address that cannot be used: what is wrong with it, and the remedy. Holds no secret."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A URL taken apart and unescaped, but for the hosts, whose `:` means something still."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    """Host and port, several where commas part them; no host is no entry."""
    path: str
    """Without its first slash."""
    options: Mapping[str, str]


def split(url: str, *, example: str) -> Parts:
    """Take a URL apart. Raises AddressError, with `example` as the remedy."""
    found = _SCHEME.match(url)
    if found is None:
        raise AddressError(f"is not a URL: write {example}")
    scheme, rest = found.group()[:-3].lower(), url[found.end() :]
    userinfo, rest = _userinfo(rest)
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "#" in authority:
        raise AddressError(f"has a # where a host belongs: write a # of the password as %23, as in {example}")
    refuse_fragment(path + query)
    user, _, password = (userinfo or "").partition(":")
    if _NOT_FILLED_IN.fullmatch(password):
        raise AddressError("has a mark where the password belongs: put the password in its place")
    return Parts(
        scheme,
        unquoted(user) or None,
        unquoted(password) or None,
        tuple(host_and_port(part, example=example) for part in authority.split(",") if part),
        unquoted(path),
        options_of(query),
    )


def _userinfo(rest: str) -> tuple[str | None, str]:
    """(what stands before the host, the remainder)."""
    before, mark, after = rest.partition("?")
    if "@" in before and not ("@" in after and "=" not in after.rpartition("@")[0]):
        userinfo, _, remainder = before.rpartition("@")
        return userinfo, remainder + mark + after
    if "@" in before:
        # No option is without its =, so this ? is the password's too.
        userinfo, _, remainder = rest.rpartition("@")
        return userinfo, remainder
    # A password with a ? in it, and an @ behind it: no host has a colon and then no digits.
    if "@" in after and "/" not in before and ":" in before and not before.rpartition(":")[2].isdigit():
        userinfo, _, remainder = rest.rpartition("@")
        return userinfo, remainder
    return None, rest


def host_and_port(text: str, *, example: str) -> tuple[str, int | None]:
    """A host, unescaped and without brackets, and its port. Raises AddressError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"has an IPv6 address without its ]: write [::1]:PORT, as in {example}")
        port = rest[1:]
    elif text.count(":") > 1:
        raise AddressError(f"has an IPv6 address without brackets: write [::1]:PORT, as in {example}")
    else:
        host, _, port = text.partition(":")
    if any(char.isspace() or not char.isprintable() for char in unquoted(host)):
        raise AddressError(f"has a blank where a host belongs: write {example}")
    if port and not (_PORT.fullmatch(port) and 0 < int(port) <= PORT_MAX):
        # Not quoted: it could be a piece of a password.
        raise AddressError(
            f"has a port that is not a number from 1 to {PORT_MAX}; in a password write @ as %40, : as %3A, "
            "/ as %2F, ? as %3F, # as %23"
        )
    return unquoted(host), int(port) if port else None


def options_of(query: str) -> dict[str, str]:
    """The options after the ?; the last one counts where one is repeated. Raises AddressError."""
    found = {}
    for pair in query.split("&"):
        if pair:
            name, equals, value = pair.partition("=")
            if not equals:
                raise AddressError("has an option without a value after the ?: write NAME=VALUE, parted by &")
            found[unquoted(name)] = unquoted(value)
    return found


def refuse_fragment(text: str) -> None:
    """Raises AddressError for a # behind the host, whatever stands after it: perhaps half a password."""
    if "#" in text:
        raise AddressError(
            "has a # behind its host, where nothing is read: write a # of a password or a name as %23, and "
            "a comment on a line of its own"
        )


def unquoted(text: str) -> str:
    """Percent-escapes as UTF-8; a % that begins none stands for itself. Raises AddressError."""
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise AddressError(
            "has an escape that is no UTF-8: write a % of the password itself as %25, and é as %C3%A9"
        ) from None
    if any(char < " " or char == "\x7f" for char in plain):
        raise AddressError("holds a control character: remove it")
    return plain


def unknown_option(name: str, known: Iterable[str]) -> AddressError:
    """For an option that nobody knows."""
    if not _NAME.fullmatch(name):
        # Not quoted: it could be a piece of a password.
        return AddressError(
            "has an unknown option after a ?: remove it; in a password write ? as %3F, & as %26"
        )
    # Near enough for a slip of the hand: statement_timeout is no connect_timeout.
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)
    return AddressError(
        f"has an unknown option {name!r}{f'; did you mean {near[0]}?' if near else ': remove it'}"
    )


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """The value of an option that takes a few words only. Raises AddressError."""
    if value not in (words := list(allowed)):
        raise AddressError(f"has {name}={in_quotes(value)}: write one of {', '.join(words)}")
    return value


def whole_number(name: str, value: str, at_most: int) -> int:
    """The value of an option that takes a number from 0. Raises AddressError."""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= at_most):
        raise AddressError(f"has {name}={in_quotes(value)}: write a whole number from 0 to {at_most}")
    return int(value)


def existing_file(name: str, value: str) -> str:
    """The value of an option that names a file. Raises AddressError."""
    path = Path(value)
    try:
        path = path.expanduser()
        is_there = path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, a ~ that leads nowhere
        is_there = False
    if not is_there:
        raise AddressError(f"has {name}={in_quotes(value, 200)}: there is no such file")
    return str(path)


def is_folder(path: str) -> bool:
    """Whether one is there under that name."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def display_url(
    scheme: str, user: str | None, password: str | None, hosts: Iterable[tuple[str, int | None]]
) -> str:
    """A URL for people to read: who and where, never the password."""
    who = f"{quote(user)}{':***' if password else ''}@" if user else "***@" if password else ""
    places = (quote(host, "") if "/" in host else f"[{host}]" if ":" in host else host for host, _ in hosts)
    ports = ("" if port is None else f":{port}" for _, port in hosts)
    return f"{scheme}://{who}{','.join(place + port for place, port in zip(places, ports, strict=True))}"
