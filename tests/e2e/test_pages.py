"""The pages that people look at, in a real browser, as wide as a desk's and a phone's, in light and in dark.
`make screenshots` keeps the pictures, and says what it skipped."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.cli.report.html import report_page
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
