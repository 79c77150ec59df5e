"""POSTs to one URL with the same headers each time, so that the head of the request is made once.

A request of aiohttp's session costs three times as much: it makes objects of every header, of the request
and of its answer, and a task for the body. Here aiohttp keeps the connections, with TLS and their limits, and
parses what comes; the request is one write. It knows no proxy, no redirect and no cookie.
"""

import asyncio
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

BODY_BYTES_MAX = 64 * 1024
"""Written at once, whatever the other end takes; a longer one goes by the session, which waits for room."""
READ_BYTES = 64 * 1024

OnHead = Callable[[Mapping[str, str]], None]


class PreparedPost:
    """One URL of one session. Made within the running loop."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        url: str,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        """Raises ValueError for a header that holds the end of a line."""
        loop = asyncio.get_running_loop()
        self._request = aiohttp.ClientRequest("POST", URL(url), headers=headers, loop=loop)
        self._connector = connector
        self._timeout = timeout
        self._head = _head_of(self._request)

    async def send(
        self, body: bytes, on_head: OnHead, bytes_max: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body or so much of its beginning) of the answer. `on_head` is told its headers as
        soon as they are there. Raises what a session's request does: aiohttp.ClientError, TimeoutError,
        OSError."""
        async with asyncio.timeout(self._timeout.total):
            connection = await self._connect()
            try:
                answer = await self._exchange(connection, body, on_head, bytes_max)
            except BaseException:
                connection.close()
                raise
            # Closed and not kept when there is more to be read, or the server said so.
            connection.release()
            return answer

    async def _connect(self) -> aiohttp.connector.Connection:
        try:
            return await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"connection timeout to {self._request.host}") from error

    async def _exchange(
        self, connection: aiohttp.connector.Connection, body: bytes, on_head: OnHead, bytes_max: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(read_until_eof=True, read_bufsize=READ_BYTES)
        transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        try:
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError(f"no HTTP: {error.message}") from error
        on_head(message.headers)
        return message.code, message.headers, await read_bounded(content, bytes_max)


def _head_of(request: aiohttp.ClientRequest) -> bytes:
    """The request up to the value of its last header, the length of the body."""
    lines = [f"POST {request.url.raw_path_qs} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name != "Content-Length"]
    if any({"\r", "\n", "\0"} & set(line) for line in lines):
        raise ValueError("a header holds the end of a line")
    return "\r\n".join([*lines, "Content-Length: "]).encode()


async def read_bounded(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """The body, or so much of its beginning: what is longer is no answer of the provider's to this call, and
    cut off it reads as none."""
    if content.is_eof():
        return content.read_nowait()[:bytes_max]  # it came with its head, as short answers do
    chunks, size = [], 0
    async for chunk in content.iter_any():
        size += len(chunk)
        chunks.append(chunk)
        if size > bytes_max:
            break
    return b"".join(chunks)[:bytes_max]
