"""The pages that people look at, in a real browser, as wide as a desk's and a phone's, in light and in dark.
`make screenshots` keeps the pictures, and says what it skipped."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from app.cli.report.html import report_page
from app.emulator.engine.options import DEFAULT_KEY, Options
from app.emulator.http.server import create_app
from tests.report_documents import DOCUMENTS
from tests.servers.browser import Browser, find_browser, open_browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        find_browser() is None,
        reason="no Chromium, so no picture was made and no page was measured: apt-get install chromium, "
        "or name one in CHROMIUM",
    ),
]
WIDTHS = (1280, 390)
THEMES = ("light", "dark")
NOW_MS = 1_790_000_000_000
MEASURE = (Path(__file__).parent / "measure_page.js").read_text()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser(find_browser() or "") as opened:
        yield opened


def pictures(fallback: Path) -> Path:
    """Where pictures are kept: the folder that SCREENSHOTS names, or one that is thrown away."""
    folder = Path(os.environ.get("SCREENSHOTS") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def page_of(name: str, folder: Path) -> str:
    """The page of a report, as a file."""
    path = folder / f"{name}.html"
    path.write_text(report_page(DOCUMENTS[name](), now_ms=NOW_MS))
    return path.as_uri()


def faults(measured: dict[str, Any], width: int) -> dict[str, Any]:
    """What is wrong with a page as it was measured."""
    wrong = {
        "letters smaller than 13px": [one for one in measured["texts"] if one["px"] < 12.9],
        "letters that do not stand out": [one for one in measured["texts"] if one["contrast"] < 4.5],
        "cut off, with nothing to show it": measured["cut"],
        "shapes that cannot be seen": measured["unseen"],
        "wider than the screen": measured["width"] if measured["width"] > width else None,
    }
    return {what: found for what, found in wrong.items() if found}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_report_can_be_read(
    browser: Browser, tmp_path: Path, name: str, width: int, theme: str
) -> None:
    await browser.show(page_of(name, tmp_path), width=width, theme=theme)
    picture = await browser.picture()
    (pictures(tmp_path) / f"report-{name}-{width}-{theme}.png").write_bytes(picture)
    measured = await browser.evaluate(MEASURE)
    assert measured["theme"] == theme
    assert len(measured["texts"]) > 20
    assert faults(measured, width) == {}


async def test_paper_has_all_of_a_report_in_light(browser: Browser, tmp_path: Path) -> None:
    await browser.show(page_of("large", tmp_path), width=1280, theme="dark", media="print")
    folded = "document.querySelector('details tbody tr:last-child').getBoundingClientRect().height"
    assert await browser.evaluate(folded) > 10
    assert await browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_a_keyboard_reaches_what_is_scrolled_or_folded_and_shows_where_it_is(
    browser: Browser, tmp_path: Path
) -> None:
    await browser.show(page_of("large", tmp_path), width=390, theme="light")
    reached = []
    for _ in range(12):
        await browser.press("Tab")
        reached.append(
            await browser.evaluate(
                "(e => [e.tagName, e.className, getComputedStyle(e).outlineStyle, "
                "parseFloat(getComputedStyle(e).outlineWidth)])(document.activeElement)"
            )
        )
    assert ["SUMMARY", "", "solid", 3] in reached
    assert reached.count(["DIV", "table wide", "solid", 3]) >= 3


SHOWN = """new Promise(done => {
    const isShown = () => document.querySelector('#faults div') !== null;
    const look = () => isShown() ? done(document.body.innerText) : setTimeout(look, 50);
    look();
})"""
TASK = {"taskType": "CHATGPT", "payload": {"prompt": "best shoes", "country": "US"}}


@contextlib.asynccontextmanager
async def emulated(faults_on: dict[str, float]) -> AsyncIterator[str]:
    """Where an emulator with some tasks and these faults is served."""
    async with (
        TestServer(create_app(Options(time_scale=200))) as server,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {DEFAULT_KEY}"}) as http,
    ):
        for _ in range(3):
            async with http.post(server.make_url("/v1/async/task"), json=TASK) as answer:
                assert answer.status == 200
        async with http.post(server.make_url("/_emulator/faults"), json=faults_on) as answer:
            assert answer.status == 200
        yield str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
async def test_the_page_of_the_emulator_can_be_read(
    browser: Browser, tmp_path: Path, width: int, theme: str
) -> None:
    async with emulated({"fail": 0.5, "drop": 0.02, "late": 0.1, "storm_429": 0.001}) as url:
        await browser.show(f"{url}/_emulator/", width=width, theme=theme)
        shown = await browser.evaluate(SHOWN)
        picture = await browser.picture()
        measured = await browser.evaluate(MEASURE)
    (pictures(tmp_path) / f"emulator-{width}-{theme}.png").write_bytes(picture)
    assert faults(measured, width) == {}
    lines = shown.splitlines()
    for name, value in (("fail", "50 %"), ("storm 429", "0.1 %"), ("late", "10 %")):
        assert lines[lines.index(name) + 1] == value
    assert "Emulated time, 200 times as fast as real time" in shown
