"""A headless Chromium, spoken to by its DevTools protocol: pages at a width and in a theme, pictures of them,
and what a script finds in them. Where no browser is installed, nothing here works."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_S = 30
ANSWER_BYTES_MAX = 1 << 28
HEIGHT = 900
PICTURE_HEIGHT_MAX = 12_000


def find_browser() -> str | None:
    """The browser's program: what CHROMIUM names, or one on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of it at a time."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._sent = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    async def begin(self) -> None:
        """Open the page that all else is about."""
        target = await self._call("Target.createTarget", url="about:blank")
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self._call("Page.enable")

    async def show(self, url: str, *, width: int, theme: str, media: str = "screen") -> None:
        """Load a page at a width in CSS pixels, in a theme: light or dark."""
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=HEIGHT,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self._call("Emulation.setEmulatedMedia", media=media, features=features)
        self._events.clear()
        await self._call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(await self._receive())

    async def evaluate(self, script: str) -> Any:
        """The value of a script, awaited; no policy of the page's keeps it out."""
        found = await self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self) -> bytes:
        """All of the page as a PNG."""
        size = (await self._call("Page.getLayoutMetrics"))["cssContentSize"]
        height = min(size["height"], PICTURE_HEIGHT_MAX)
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
        shot = await self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    async def press(self, key: str) -> None:
        """One key, as a person presses it."""
        for kind in ("keyDown", "keyUp"):
            await self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        while (answer := await self._receive()).get("id") != self._sent:
            self._events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def _receive(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=START_S))
        return found


@contextlib.asynccontextmanager
async def open_browser(program: str) -> AsyncIterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        drained = None
        try:
            address = await _address(process.stderr)
            drained = asyncio.create_task(process.stderr.read())
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=ANSWER_BYTES_MAX) as socket,
            ):
                browser = Browser(socket)
                await browser.begin()
                yield browser
        finally:
            process.terminate()
            await process.wait()
            if drained is not None:
                await drained


async def _address(errors: asyncio.StreamReader) -> str:
    """Where it says that it listens."""
    async with asyncio.timeout(START_S):
        while line := await errors.readline():
            if b"listening on ws://" in line:
                return line.decode().split()[-1]
    raise AssertionError("the browser ended before it listened")
