"""The report's page: nothing in it is fetched or executed, every chart can be read without seeing it."""

import re
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from app.cli.report.html import report_page
from app.cli.report.style import STYLE
from app.cli.report.svg import Chart, figure, stacked_columns, text

NOW_MS = 1_790_000_000_000
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</style></title><svg/onload=a>",
    "&lt;b&gt;",
    "{{7*7}}",
    "a\x00b\x07",
    "\u202eevil",
    "javascript:alert(1)",
    "]]>",
    "<!--",
)
ALLOWED_TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "h1",
    "h2",
    "p",
    "dl",
    "dt",
    "dd",
    "bdi",
    "section",
    "div",
    "figure",
    "ul",
    "li",
    "i",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "desc",
    "rect",
    "line",
    "text",
}
ALLOWED_ATTRIBUTES = {
    "lang",
    "charset",
    "name",
    "content",
    "http-equiv",
    "class",
    "role",
    "viewbox",
    "aria-labelledby",
    "id",
    "x",
    "y",
    "width",
    "height",
    "x1",
    "x2",
    "y1",
    "y2",
    "text-anchor",
    "scope",
    "tabindex",
    "aria-label",
}


def document(**changes: Any) -> dict[str, Any]:
    """A report as report_document.full_report_document gives it."""
    states = dict.fromkeys(("pending", "submitting", "submitted", "rejected", "expired", "cancelled"), 0)
    return {
        "run": {
            "id": "0192",
            "name": "monday",
            "source": "p.csv",
            "account": "default",
            "state": "running",
            "reason": None,
            "budget": None,
            "bad_lines": 0,
            "created_at": "2026-09-21T14:13:20.000Z",
        },
        "finished": True,
        "tasks": 1_200,
        "open": 0,
        "completed": 1_199,
        "failed": 1,
        **states,
        "duplicates": 3,
        "swept": 2,
        "recovered_submits": 1,
        "reused": 0,
        "money_open": 1,
        "verdicts": {"matched": 1_190, "overcharged": 9, "unknown": 1, "conflict": 0},
        "credits": {"estimate": 6_000, "charged": "6000.5", "held": 5, "posted": "6000.5", "voided": 5},
        "findings": [
            {
                "verdict": "overcharged",
                "task_id": "t-1",
                "attempt": 1,
                "expected": 5,
                "actual": "5.5",
                "detail": "completed",
                "delivery_id": "d",
            },
            {
                "verdict": "unknown",
                "task_id": "t-2",
                "attempt": 1,
                "expected": 5,
                "actual": None,
                "detail": "no charge",
                "delivery_id": "d",
            },
        ],
        "findings_count": 10,
        "adjusted": "-0.5",
        "exposure": {"in_flight": {"attempts": 0, "credits": 0}, "unknown": {"attempts": 1, "credits": 5}},
        "by_engine_country": [
            {
                "task_type": "CHATGPT",
                "country": "US",
                "tasks": 1_000,
                "completed": 999,
                "failed": 1,
                "open": 0,
                "posted": "5000.5",
                "held": 5,
            },
            {
                "task_type": "GOOGLE",
                "country": None,
                "tasks": 200,
                "completed": 200,
                "failed": 0,
                "open": 0,
                "posted": 1_000,
                "held": 0,
            },
        ],
        "by_day": [
            {"day": "2026-09-21", "task_type": "CHATGPT", "posted": "5000.5"},
            {"day": "2026-09-24", "task_type": "GOOGLE", "posted": 1_000},
        ],
        "latency": [
            {
                "task_type": "CHATGPT",
                "tasks": 1_000,
                "p50_ms": 1_500,
                "p90_ms": 4_000,
                "p95_ms": 9_000,
                "p99_ms": 65_000,
                "max_ms": 100_000_000,
                "histogram": [{"below_ms": 2_000, "tasks": 990}, {"below_ms": None, "tasks": 10}],
            }
        ],
        **changes,
    }


class Page(HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.open or ("th" in self.open and "tbody" in self.open):
            self.cells[-1].append(data)

    def row(self, first: str) -> list[str]:
        """The first row of a table that begins with this cell."""
        return next(cells for cells in self.cells if cells and cells[0] == first)


def test_nothing_of_the_page_comes_from_elsewhere_and_nothing_runs() -> None:
    raw = report_page(document(), now_ms=NOW_MS)
    page = Page(raw)
    assert page.open == []
    assert set(page.tags) <= ALLOWED_TAGS, set(page.tags) - ALLOWED_TAGS
    names = {name for name, _ in page.attributes}
    assert names <= ALLOWED_ATTRIBUTES, names - ALLOWED_ATTRIBUTES
    assert not re.search(r"url\(|@import|https?:|src=|href=", raw)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert len(raw) < 15_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_other_people_wrote_stays_text(hostile: str) -> None:
    plain = Page(report_page(document(), now_ms=NOW_MS))
    run = document()["run"] | dict.fromkeys(("name", "source", "account", "reason", "id"), hostile)
    part = document()["by_engine_country"][0] | {"country": hostile, "task_type": hostile}
    finding = document()["findings"][0] | {"detail": hostile, "task_id": hostile, "verdict": hostile}
    latency = document()["latency"][0] | {"task_type": hostile}
    day = document()["by_day"][0] | {"task_type": hostile}
    page = Page(
        report_page(
            document(
                run=run,
                by_engine_country=[part, document()["by_engine_country"][1]],
                findings=[finding] * 2,
                verdicts={hostile: 9, "matched": 1, "unknown": 1},
                latency=[latency],
                by_day=[day, document()["by_day"][1]],
            ),
            now_ms=NOW_MS,
        )
    )
    assert page.open == []
    assert set(page.tags) == set(plain.tags)
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    shown = "".join("\ufffd" if ord(c) < 32 else c for c in hostile)
    assert page.texts.count(shown) >= 10
    assert not any("\x00" in text for text in page.texts)


def test_every_chart_has_a_title_a_description_and_a_table() -> None:
    raw = report_page(document(), now_ms=NOW_MS)
    page = Page(raw)
    charts = [ids.split() for name, ids in page.attributes if name == "aria-labelledby"]
    assert len(charts) == page.tags.count("svg") == page.tags.count("figure") == 3
    assert all(one in page.ids for ids in charts for one in ids)
    assert len(page.ids) == len(set(page.ids))
    for section in raw.split("<section>")[1:]:
        assert section.count("<svg") <= section.count("<table")
    assert page.tags.count("caption") == page.tags.count("table")


def test_figures_are_exact() -> None:
    page = Page(report_page(document(), now_ms=NOW_MS))
    assert page.row("2026-09-21") == ["2026-09-21", "CHATGPT", "5,000.5"]
    assert page.row("posted") == ["posted", "6,000.5"]
    assert page.row("adjusted") == ["adjusted", "-0.5"]
    assert page.row("US")[:2] == ["US", "5,000.5"]
    assert page.row("unknown") == ["unknown", "1"]
    assert page.row("overcharged") == ["overcharged", "9"]
    assert ["unknown", "t-2", "1", "5", "unknown", "no charge"] in page.cells
    assert "The first 2 of 10; --findings shows more." in page.texts
    text = " ".join(page.texts)
    assert "What 1 finished attempts cost is not known yet. 10 findings to explain." in text
    assert "As of 2026-09-21 14:13:20." in text


def test_days_without_charges_stand_in_the_chart() -> None:
    page = report_page(document(), now_ms=NOW_MS)
    for day in ("2026-09-21", "2026-09-22", "2026-09-23", "2026-09-24"):
        assert f">{day}</text>" in page


def test_a_run_of_which_nothing_is_known_yet() -> None:
    empty = document(
        verdicts={"matched": 0},
        findings=[],
        findings_count=0,
        by_engine_country=[],
        by_day=[],
        latency=[],
        tasks=0,
        completed=0,
        failed=0,
    )
    page = Page(report_page(empty, now_ms=NOW_MS))
    assert page.tags.count("svg") == 0
    assert "Nothing was charged yet." in page.texts


def test_columns_are_as_tall_as_their_values() -> None:
    chart = Chart("c", "t", "d", "credits")
    drawn = stacked_columns(
        chart, ["a", "b"], {"one": [Decimal(10), Decimal(0)], "two": [Decimal(30), Decimal(20)]}
    )
    rects = re.findall(r'class="s(\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn)
    assert [colour for colour, *_ in rects] == ["0", "1", "1"]
    heights = [float(height) for *_, height in rects]
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.2)
    assert heights[2] == pytest.approx(2 * heights[0], abs=0.2)
    assert float(rects[1][2]) == pytest.approx(float(rects[0][2]) - heights[1], abs=0.2)
    # 40 is the sum of the taller column, and four ticks reach it.
    assert re.findall(r'text-anchor="end">(\d+)<', drawn) == ["0", "10", "20", "30", "40"]


@pytest.mark.parametrize(
    ("value", "shown"), [(1234567, "1,234,567"), (Decimal("0.000001"), "0.000001"), (Decimal(-5), "-5")]
)
def test_figures_are_never_rounded(value: int | Decimal, shown: str) -> None:
    assert figure(value) == shown


def test_markup_is_text() -> None:
    assert text("<&>\"'\x0c") == "&lt;&amp;&gt;&quot;&#x27;\ufffd"


def test_colours_stand_out_from_their_background() -> None:
    modes = re.findall(r":root\{([^}]*)\}", STYLE)
    assert len(modes) == 2
    for mode in modes:
        colours = dict(re.findall(r"--(\w+):(#\w+)", mode))
        for name in (f"c{n}" for n in range(8)):
            assert contrast(colours[name], colours["bg"]) >= 3, name
        assert contrast(colours["fg"], colours["bg"]) >= 7
        assert contrast(colours["dim"], colours["bg"]) >= 4.5
        assert all(one != other for one, other in pairwise(sorted(colours[f"c{n}"] for n in range(8))))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
