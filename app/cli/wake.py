"""Waking the workers from a process that goes on: one connection, made when it is first needed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import Settings
    from app.queue import Queue


class Waker:
    """Of one process; close it at the end."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._url: str | None = None
        self._queue: Queue | None = None

    async def wake(self) -> bool:
        """Tell the workers that there is something to send; False when no queue was reached. Then they find
        it by themselves, within seconds."""
        from app.bootstrap import open_queue
        from app.local.embedded import running_valkey

        url = running_valkey(self._settings)
        if url != self._url:
            await self.close()
            self._url, self._queue = url, None if url is None else open_queue(url, self._settings)
        return self._queue is not None and await self._queue.wake_submit()

    async def close(self) -> None:
        """Close its connections."""
        queue, self._queue, self._url = self._queue, None, None
        if queue is not None:
            await queue.close()
