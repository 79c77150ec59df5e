"""Addresses of object storage: a folder of this machine, or a bucket and a prefix in it."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.address.split import AddressError

EXAMPLE = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}", re.IGNORECASE)
_KINDS = {"s3": "s3", "gs": "gs", "az": "az", "file": "file", "s3a": "s3", "gcs": "gs", "azure": "az"}


@dataclass(frozen=True, slots=True)
class ObjectsAddress:
    """Where objects are kept."""

    kind: str
    """file, s3, gs or az."""
    bucket: str
    """Or container; empty for a folder."""
    prefix: str
    """Without slashes around it; the whole path of a folder."""

    @property
    def display(self) -> str:
        """For people. It holds no secret, because an address with one is refused."""
        if self.kind == "file":
            return self.prefix
        return f"{self.kind}://{self.bucket}/{self.prefix}".rstrip("/")


def read_objects_address(text: str) -> ObjectsAddress:
    """Raises AddressError; the text never quotes the address, because a key may stand in it."""
    if not text.strip() or any(char < " " for char in text):
        raise AddressError(f"is empty or holds a control character: write {EXAMPLE}")
    if _SCHEME.match(text) is None:
        return _folder(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise AddressError(f"has a bucket or port that is none: write {EXAMPLE}") from None
    if parts.scheme not in _KINDS:
        raise AddressError(f"begins with a word that names no storage known here: write {EXAMPLE}")
    if parts.username is not None or parts.password is not None:
        raise AddressError(
            "has a user or password in it, which would be logged: leave it out, and set the storage's own "
            "variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if "?" in text or "#" in text:
        raise AddressError(
            "has a ? or # in it: options are the storage's own variables, such as AWS_ENDPOINT_URL and "
            "AWS_REGION"
        )
    if parts.scheme == "file":
        return _folder_of_url(parts.netloc, unquote(parts.path))
    if not _BUCKET.fullmatch(parts.netloc):
        raise AddressError(f"names no bucket: write {EXAMPLE}")
    return ObjectsAddress(_KINDS[parts.scheme], parts.netloc, _prefix(unquote(parts.path)))


def _folder_of_url(host: str, path: str) -> ObjectsAddress:
    if host not in ("", "localhost") or not path.startswith("/"):
        raise AddressError("is a file: address of another machine: write file:///PATH, or the path alone")
    return _folder(path)


def _folder(text: str) -> ObjectsAddress:
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise AddressError("begins with a ~ that leads nowhere: write the whole path") from None
    return ObjectsAddress("file", "", str(path))


def _prefix(path: str) -> str:
    prefix = path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise AddressError("has an empty part, a . or a .. between its slashes: write the prefix without")
    return prefix
