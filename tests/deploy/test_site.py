"""The pages as a site: every link leads somewhere, and nothing of it comes from elsewhere."""

import re
import shutil
from pathlib import Path

import pytest

from deploy.pages_hook import as_site
from tests.deploy.tools import ROOT, must, python_tool, run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]
ELSEWHERE = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](https?://[^"']+)""")


def test_the_site_is_built_strictly_and_needs_no_network(tmp_path: Path) -> None:
    must(python_tool("mkdocs"), "build", "--strict", "--site-dir", tmp_path / "site", cwd=ROOT)
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    taken = {url for page in pages for url in ELSEWHERE.findall(page.read_text())}
    assert taken == set()
    assert (tmp_path / "site" / "index.html").read_text().count("Tallyhook") > 3


def test_a_link_that_leads_nowhere_ends_it(tmp_path: Path) -> None:
    for name in ("docs", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "SECURITY.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "books.md"
    page.write_text(page.read_text() + "\nSee [that](nothing.md) and [this](relay.md#no-such-heading).\n")
    ended = run(python_tool("mkdocs"), "build", "--strict", "--site-dir", tmp_path / "site", cwd=tmp_path)
    assert ended.returncode != 0
    assert "nothing.md" in ended.stdout
    assert "no-such-heading" in ended.stdout


def test_links_become_those_of_the_site() -> None:
    text = "[a](../README.md), [b](relay.md#x), [c](../app/README.md), [d](https://e), [e](../SECURITY.md#f)"
    assert as_site(text, "docs/books.md") == (
        "[a](index.md), [b](relay.md#x), c, [d](https://e), [e](reporting.md#f)"
    )
    assert as_site("[a](../relay.md), [b](../../README.md)", "docs/deploy/large.md") == (
        "[a](../relay.md), [b](../index.md)"
    )
    assert as_site("[a](docs/deploy/large.md), [b](deploy)", "README.md") == "[a](deploy/large.md), b"
    assert as_site("![a](docs/page.png)", "README.md") == "![a](page.png)"
    assert as_site("![a](performance.svg)", "docs/performance.md") == "![a](performance.svg)"
