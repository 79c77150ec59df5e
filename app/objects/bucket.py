"""Objects in a bucket of S3, Google Cloud Storage or Azure, by obstore. The only module that imports it; the
extra `tallyhook[objects]` brings it.

Credentials come from the environment, as obstore takes them, and are never shown: neither is what obstore
says of its stores, nor the address that a request was sent to.
"""

import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.address import ObjectsAddress
from app.objects.objects import ObjectEntry
from app.ports import ObjectsRefused, ObjectsUnavailable

REQUEST_TIMEOUT_S = 60.0
"""For one request with its body, a part of PART_BYTES at most: 140 KB/s are enough."""
CONNECT_TIMEOUT_S = 5.0
RETRIES_MAX = 4
RETRY_TIMEOUT_S = 60.0
"""A request is tried again after 0.1, 0.2, 0.4, 0.8 s, or what a 5xx or a lost connection leave of a minute.
So a call takes two minutes for each part at most, and then whoever called tries again, or does not."""
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 3
"""24 MB in memory, however large the object; 10,000 parts, the most that S3 takes, are 80 GB."""

_ENDPOINTS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them",
    "gs": "set GOOGLE_SERVICE_ACCOUNT to the file of a service account's key, or run where a role gives one",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run where a role gives them",
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_NO_CREDENTIALS = (
    "latest/api/token",
    "latest/meta-data",
    "computeMetadata",
    "metadata/identity",
    "token request",
    "InvalidAccessKeyId",
)
_WRONG_KEYS = ("SignatureDoesNotMatch", "AuthenticationFailed", "InvalidToken", "ExpiredToken")
_WRONG_REGION = ("configured region", "AuthorizationHeaderMalformed", "PermanentRedirect")
_ANY_URL = re.compile(r"https?://[^\s?]+(\?\S*)?")


class Bucket:
    """Objects below a prefix of a bucket."""

    def __init__(self, address: ObjectsAddress, *, ca_file: str = "") -> None:
        self.display = address.display
        self._address = address
        try:
            self._store = _opened(address, ca_file)
        except Exception as error:
            raise self._translate(error) from None

    async def put(self, path: str, content: bytes | Path) -> None:
        try:
            await self._store.put_async(path, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except Exception as error:
            raise self._translate(error) from None

    async def create(self, path: str, content: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            await self._store.put_async(path, content, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return await self._is_there(path, content)
        except Exception as error:
            raise self._translate(error) from None
        return True

    async def _is_there(self, path: str, content: bytes) -> bool:
        # After an answer that was lost, obstore sends the request again, and finds what it has made itself.
        there = await self.get(path)
        if there is None:
            # S3 says 409, which obstore gives the same name, while another request for the path is under way.
            raise ObjectsUnavailable(f"{self.display}: {path} was being written by somebody else")
        return there == content

    async def get(self, path: str) -> bytes | None:
        try:
            result = await self._store.get_async(path)
            return bytes(await result.bytes_async())
        except Exception as error:
            self._raise_unless_absent(error)
            return None

    async def get_range(self, path: str, start: int, length_bytes: int) -> bytes:
        try:
            return bytes(await self._store.get_range_async(path, start=start, length=length_bytes))
        except Exception as error:
            self._raise_unless_absent(error)
            raise

    async def size_bytes(self, path: str) -> int | None:
        try:
            return int((await self._store.head_async(path))["size"])
        except Exception as error:
            self._raise_unless_absent(error)
            return None

    async def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        try:
            # In the order of the paths, as S3, Google and Azure list them.
            async for entries in self._store.list(folder or None, offset=after or None, chunk_size=1_000):
                for entry in entries:
                    yield ObjectEntry(entry["path"], entry["size"])
        except Exception as error:
            raise self._translate(error) from None

    async def delete(self, path: str) -> None:
        try:
            await self._store.delete_async(path)
        except Exception as error:
            self._raise_unless_absent(error)

    def _raise_unless_absent(self, error: Exception) -> None:
        """Returns for an error that says that the object is not there."""
        if not isinstance(error, FileNotFoundError) or any(word in str(error) for word in _NO_BUCKET):
            raise self._translate(error) from None

    def _translate(self, error: Exception) -> Exception:
        """What an error of obstore's means. One of ours, or a bug's, stays as it is."""
        if isinstance(error, ObjectsRefused):
            return error
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        text = str(error).partition("\n\nDebug source")[0]
        if remedy := self._remedy(text):
            return ObjectsRefused(f"cannot use {self.display}: {_reason(text)}", remedy)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return ObjectsRefused(
                f"cannot use {self.display}: {_reason(text)}",
                "give the credentials the right to read, write, list and delete there",
            )
        if isinstance(error, NotImplementedError):
            return ObjectsRefused(f"cannot use {self.display}: {_reason(text)}", "choose another storage")
        if isinstance(error, BaseError | OSError):
            return ObjectsUnavailable(f"{self.display}: {_reason(text)}")
        return error

    def _remedy(self, text: str) -> str:
        """What a person must do, as far as the words tell it."""
        kind = self._address.kind
        if any(word in text for word in _NO_BUCKET):
            return f"make the {'container' if kind == 'az' else 'bucket'} first, or name another one"
        if any(word in text for word in _WRONG_KEYS):
            return f"the storage does not take these credentials; {_CREDENTIALS[kind]}"
        if any(word in text for word in _NO_CREDENTIALS) or "service account" in text:
            return _CREDENTIALS[kind]
        if "Account must be specified" in text:
            return "set AZURE_STORAGE_ACCOUNT_NAME"
        if any(word in text for word in _WRONG_REGION):
            return "set AWS_REGION to the bucket's region"
        if "builder error" in text:
            return (
                f"check {' and '.join(name for name in _ENDPOINTS if os.environ.get(name)) or 'the endpoint'}"
            )
        return ""


def _opened(address: ObjectsAddress, ca_file: str) -> Any:
    try:
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise ObjectsRefused(
            f"{address.display} needs obstore, which is not installed",
            "pip install 'tallyhook[objects]', or name a folder",
        ) from None
    # Options of the client that stand in the environment are not read any more once some are given here.
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "allow_http": any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS),
    }
    if ca_file:
        client["root_certificate"] = Path(ca_file).read_bytes()
    stores = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    # Not by from_url, which takes the first part of an az:// address for an account or for a container.
    return stores[address.kind](
        address.bucket,
        prefix=address.prefix or None,
        client_options=client,
        retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
    )


def _reason(text: str) -> str:
    """The first line of what obstore says, without the queries of addresses: a signature may stand there."""
    line = _ANY_URL.sub(lambda url: url.group().partition("?")[0], text.strip().splitlines()[0])
    code = re.search(r"<Code>(\w+)</Code>", text)
    return f"{line[:300]} ({code.group(1)})" if code and code.group(1) not in line[:300] else line[:300]
