"""Each page for those who hear it, see little, or have a small screen: axe finds nothing serious, nothing is
cut off, in both themes and widths, with JavaScript and without."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from app.page.table import PAGES
from tests.browser.conftest import Stack, Visit, prompts

if TYPE_CHECKING:
    from playwright.sync_api import Page

MEASURE = (Path(__file__).parents[1] / "e2e" / "measure_page.js").read_text()
PRESSED = """[...document.querySelectorAll(
    "button, .button, input:not([type=checkbox], [type=hidden]), select, summary, nav li a"
)].map(e => [e.textContent.trim().slice(0, 30), e.getBoundingClientRect().height])
.filter(([, height]) => height > 0 && height < 43.5)"""
"""What is pressed and is no link within a text: less than 44 pixels high, which a finger may miss."""
PHONE = 390
LOOKS = [(width, theme) for width in (1280, PHONE) for theme in ("light", "dark")]
PLACES = tuple(route.path for route in PAGES if route.nav)


def paths(stack: Stack, page: "Page") -> list[str]:
    """Each page that is drawn, a run and a task among them."""
    run = f"/runs/{stack.runs['Monday brand check']}"
    page.goto(run)
    task = page.locator("a[href^='/tasks/']").first.get_attribute("href") or ""
    filters = [f"{run}?q=state:failed", f"{run}?q=colour:red", f"{run}?q=custom_id:none"]
    return [*PLACES, run, *filters, f"{run}/cancel", task, "/no/such/place"]


def asking_paths(stack: Stack, page: "Page") -> list[str]:
    """Pages that ask before something is done: a file that was looked at, what was tried out, the end of a
    token, one task again; and what is shown of a change that is under way, or over."""
    path = stack.folder / "looked-at.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in prompts(3, "Looked at: which")) + "\n{}\n")
    page.goto("/submit")
    page.get_by_label("Drop a file here").set_input_files(path)
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("button", name=re.compile("^Send 3 tasks")).wait_for()
    found = [urlsplit(page.url).path]
    for verb in ("cancel", "resume"):
        page.goto("/bulk")
        page.get_by_label("What to do").select_option(verb)
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("heading", level=1, name=re.compile(r"\?$")).wait_for()
        found.append(urlsplit(page.url).path)
    page.goto(f"/runs/{stack.runs['Monday brand check']}?q=state:failed")
    failed = page.locator("a[href^='/tasks/']").first.get_attribute("href") or ""
    page.goto("/tokens")
    revoke = page.get_by_role("link", name="Revoke…").first.get_attribute("href") or ""
    return [*found, failed, f"{failed}/retry", revoke]


def keep_picture(page: "Page", path: str, width: int, theme: str) -> None:
    """In the folder that SCREENSHOTS names, where it names one (`make screenshots`)."""
    if folder := os.environ.get("SCREENSHOTS"):
        name = re.sub(r"[0-9a-f-]{36}", "one", path)
        name = re.sub(r"[^a-z_]+", "-", name).strip("-") or "overview"
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/page-{name}-{width}-{theme}.png", full_page=True)


def is_meant(cut: list[str]) -> bool:
    """Words for who hears the page; the name of a token, a long name in a list, which their titles have
    whole; on a phone the links to
    the pages, which fade where more follow."""
    return cut[1] in ("unseen", "name", "clip") or (
        cut[0] == "width" and cut[-1].startswith("OverviewSubmit")
    )


def serious(page: "Page") -> list[Any]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        (one["id"], node["html"][:160], node.get("failureSummary", "")[:300])
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_nothing_serious_is_found(visit: Visit, stack: Stack, width: int, theme: str) -> None:
    page = visit("/", width=width, theme=theme)
    faults = {}
    for path in [*paths(stack, page), *asking_paths(stack, page), "/sign-in"]:
        if path == "/sign-in":
            page.context.clear_cookies()
        page.goto(path)
        keep_picture(page, path.replace(stack.runs["Monday brand check"], "one"), width, theme)
        measured = page.evaluate(MEASURE)
        wrong: dict[str, Any] = {
            "axe": serious(page),
            "small": [one for one in measured["texts"] if one["px"] < 12.9],
            "faint": [one for one in measured["texts"] if one["contrast"] < 4.5],
            "cut": [one for one in measured["cut"] if not is_meant(one)],
            "unseen": measured["unseen"],
            "small to press": page.evaluate(PRESSED) if width == PHONE else None,
            "wide": measured["width"] if measured["width"] > width else None,
        }
        if wrong := {what: found for what, found in wrong.items() if found}:
            faults[path] = wrong
    assert faults == {}, json.dumps(faults, indent=1)


@pytest.mark.parametrize("scope", ["read", "submit", "operate"])
def test_without_script_each_page_says_what_it_says_with_it(visit: Visit, stack: Stack, scope: str) -> None:
    with_script, without = visit("/", scope=scope), visit("/", scope=scope, script=False)
    for path in paths(stack, with_script):
        for page in (with_script, without):
            page.goto(path)
        assert [h.inner_text() for h in without.get_by_role("heading").all()] == [
            h.inner_text() for h in with_script.get_by_role("heading").all()
        ], path
        assert without.locator("main").inner_text().strip() != ""
