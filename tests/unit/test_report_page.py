"""The report's page, read by a parser as browsers have it: nothing in it is fetched or executed, every chart
can be read without seeing it, figures are exact, and letters can be read."""

import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tinycss2
from selectolax.lexbor import LexborHTMLParser, LexborNode

import app.cli.report
from app.charts.figures import NO_BREAK, duration, figure, share
from app.charts.svg import Chart, row_bar, stacked_columns, text, visible
from app.cli.report.html import report_page
from tests.report_documents import (
    DOCUMENTS,
    document,
    empty,
    finding,
    going,
    large,
    latency,
    part,
    run,
    single,
)
from tests.report_pages import cards, rows

NOW_MS = 1_790_000_000_000
STYLE = (Path(app.cli.report.__file__).parent / "templates" / "report.css").read_text()
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
    "header",
    "section",
    "h1",
    "h2",
    "p",
    "b",
    "span",
    "bdi",
    "i",
    "dl",
    "dt",
    "dd",
    "div",
    "details",
    "summary",
    "figure",
    "figcaption",
    "ul",
    "li",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
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
    "aria-labelledby",
    "aria-hidden",
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
    "title",
    "dir",
    "data-label",
}
TEXT_PX_MIN = 13


def parsed(made: Mapping[str, Any]) -> LexborHTMLParser:
    """The page of a report."""
    return LexborHTMLParser(report_page(dict(made), now_ms=NOW_MS))


def nodes(page: LexborHTMLParser) -> list[LexborNode]:
    """Its elements."""
    root = page.root
    assert root is not None
    return [root, *root.css("*")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_of_the_page_comes_from_elsewhere_and_nothing_runs(name: str) -> None:
    raw = report_page(DOCUMENTS[name](), now_ms=NOW_MS)
    page = LexborHTMLParser(raw)
    assert {node.tag for node in nodes(page)} - {"-text"} <= ALLOWED_TAGS
    attributes = {attribute for node in nodes(page) for attribute in node.attributes}
    assert attributes <= ALLOWED_ATTRIBUTES, attributes - ALLOWED_ATTRIBUTES
    policy = page.css_first('meta[http-equiv="Content-Security-Policy"]')
    assert policy is not None
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"url\(|@import", STYLE)
    assert len(raw) < (35_000 if name != "large" else 250_000)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_other_people_wrote_stays_text(hostile: str) -> None:
    def made(word: str) -> dict[str, Any]:
        about = dict.fromkeys(("name", "source", "account", "reason", "id", "state"), word)
        named = {"detail": word, "task_id": word, "verdict": word, "prompt": word, "task_type": word}
        return document(
            run=run(**about),
            by_engine_country=[part(word, word, 1_000), part("GOOGLE", None, 200)],
            findings=[finding(0, **named, country=word), finding(2, **named)],
            verdicts={word: 9, "matched": 1, "unknown": 1},
            latency=[latency(word, 1, {2_000: 1})],
            by_day=[{"day": day, "task_type": word, "posted": 5} for day in ("2026-09-21", "2026-09-22")],
        )

    page, plain = parsed(made(hostile)), parsed(made("plain"))
    shape, plain_shape = (
        Counter((node.tag, *sorted(node.attributes)) for node in nodes(one)) for one in (page, plain)
    )
    assert shape == plain_shape
    shown = "".join("\ufffd" if ord(c) < 32 else c for c in hostile)
    assert page.html is not None
    assert (page.body or page.root).text().count(shown) >= 15  # type: ignore[union-attr]
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", page.html)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_everything_drawn_is_in_a_table_too(name: str) -> None:
    page = parsed(DOCUMENTS[name]())
    ids = [node.attributes["id"] for node in nodes(page) if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    named = [node.attributes["aria-labelledby"] or "" for node in page.css("[aria-labelledby]")]
    assert {one for names in named for one in names.split()} <= set(ids)
    for table in page.css("table"):
        caption = table.css_first("caption")
        assert caption is not None
        assert caption.text(strip=True)
        heads = len(table.css("thead th[scope=col]"))
        assert all(len(row.css("th[scope=row]")) == 1 for row in table.css("tbody tr"))
        assert {len(row.css("th, td")) for row in table.css("tbody tr")} <= {heads}
    for drawing in page.css("svg"):
        assert drawing.attributes["aria-hidden"] == "true"
    assert all(
        len(page.css(f"#{plot.attributes['aria-labelledby'].split()[0]}")) for plot in page.css(".plot")
    )  # type: ignore[union-attr]
    levels = [int(node.tag[1]) for node in page.css("h1, h2")]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_figures_are_exact() -> None:
    page = parsed(document())
    assert rows(page, "Credits posted by day and engine")["2026-09-21"] == ["CHATGPT", "5,000.5"]
    ledger = rows(page, "Ledger")
    assert (ledger["posted: charged"], ledger["adjusted later"]) == (["6,000.5"], ["-0.5"])
    assert ledger["of it charge unknown, work closed (attempts: 1)"] == ["5"]
    assert rows(page, "Credits posted by country")["US"] == ["5,000.5", "5,000.5", f"83.3{NO_BREAK}%"]
    assert rows(page, "To be explained") == {
        "overcharged": ["9", f"0.8{NO_BREAK}%"],
        "unknown": ["1", f"<0.1{NO_BREAK}%"],
    }
    at_a_glance = cards(page)
    assert [at_a_glance[name] for name in ("Charged", "To explain", "Failed")] == ["6,000.5", "10", "1"]
    shown = page.body.text() if page.body else ""
    assert "What 1 finished attempt cost is not known yet." in shown
    assert "The first 2 of 10; --findings shows more." in shown
    assert "As of 2026-09-21 14:13:20 UTC." in shown


def test_what_the_money_bought_is_said_by_engine_and_country() -> None:
    page = parsed(document())
    bought = ["990", f"99{NO_BREAK}%", "9", "1", "0", "0", "5,000.5", "5", "5.05101"]
    percent = f"2{NO_BREAK}%"
    assert rows(page, "By engine")["CHATGPT"] == [*bought, f"1.5{NO_BREAK}s", f"9.0{NO_BREAK}s", percent]
    by_country = rows(page, "By engine and country")
    assert by_country["CHATGPT · US"] == [*bought, f"1.4{NO_BREAK}s", f"9.0{NO_BREAK}s", percent]
    assert by_country["GOOGLE · any"][0] == "200"
    assert rows(page, "By engine")["all"][:2] == ["1,190", f"99.2{NO_BREAK}%"]
    assert "fewer than 20 characters" in (page.body.text() if page.body else "")


def test_shares_are_of_all_and_never_all_or_none_by_rounding() -> None:
    page = parsed(document())
    assert rows(page, "Tasks by state") == {
        "completed": ["1,199", f">99.9{NO_BREAK}%"],
        "failed": ["1", f"<0.1{NO_BREAK}%"],
        "all": ["1,200", f"100{NO_BREAK}%"],
    }
    assert [share(n, 8).replace(NO_BREAK, "") for n in (0, 1, 8)] == ["0%", "12.5%", "100%"]
    assert share(0, 0) == ""


def test_a_finding_says_which_task_it_is_about() -> None:
    page = parsed(document(findings=[finding(1), finding(0, prompt=None, ordinal=None, task_type=None)]))
    known, unknown = page.css("table.stacked tbody tr")
    words = known.text()
    for expected in ("charged_failure", "ما هي أفضل برامج", "record 18 · CHATGPT · DE · attempt 2"):
        assert expected in words
    assert [cell.text(strip=True) for cell in known.css("td.figure")] == ["5", "8", "3"]
    assert [cell.attributes["data-label"] for cell in known.css("td")][1:4] == [
        "expected",
        "actual",
        "difference",
    ]
    assert known.css("p.prompt")[0].attributes["dir"] == "auto"
    assert "01a2b3c4-0000" in unknown.text()


def test_long_tables_are_folded_and_say_how_long_they_are() -> None:
    page = parsed(large())
    by_country, folded = page.css("details")
    assert by_country.css("summary")[0].text() == "By engine and country: 56 rows"
    (summary,) = folded.css("summary")
    assert summary.text() == "Credits posted by day and engine: 481 rows"
    assert len(folded.css("tbody tr")) == 481
    assert "open" not in folded.attributes
    for rule in re.findall(r"max-height:[^;}]*", STYLE):
        raise AssertionError(f"something is cut: {rule}")


def test_few_stand_beside_many_and_are_seen() -> None:
    page = parsed(large())
    assert rows(page, "Need no explaining")["free_failure"] == ["4,700", f"0.5{NO_BREAK}%"]
    assert rows(page, "To be explained")["overcharged"][0] == "37"
    for bar in page.css("svg.bar"):
        lengths = [float(rect.attributes["width"].rstrip("%")) for rect in bar.css("rect")]  # type: ignore[union-attr]
        assert sum(lengths) <= 100.1
        assert not lengths or sum(lengths) >= 2.4
    (few,) = (row.css("rect") for row in page.css("tr") if row.text(strip=True).startswith("free_failure"))
    assert few[0].attributes["width"] == "2.50%"


@pytest.mark.parametrize(
    ("lengths", "seen"),
    [
        ([99.0, 1.0], [97.5, 2.5]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([0.004] * 5, [0.5] * 5),
        ([60.0, 40.0], [60.0, 40.0]),
        ([50.0, 0.0, 0.1], [47.6, 0.0, 2.5]),
        ([3.0] * 4, [3.0] * 4),
    ],
)
def test_the_longest_makes_room_for_what_is_hardly_there(lengths: list[float], seen: list[float]) -> None:
    assert visible(lengths) == pytest.approx(seen)


def test_a_run_of_which_nothing_is_known_yet() -> None:
    page = parsed(empty())
    assert page.css("svg") == []
    shown = page.body.text() if page.body else ""
    for words in ("There is no task.", "Nothing was charged yet.", "Nothing is settled yet."):
        assert words in shown
    assert "Every charge is explained." in shown


def test_one_task_and_one_day_are_drawn_without_axes() -> None:
    page = parsed(single())
    assert page.css(".plot") == []
    assert rows(page, "Credits posted by engine")["CHATGPT"] == ["5", f"100{NO_BREAK}%"]


def test_a_run_that_goes_on_says_so() -> None:
    page = parsed(going())
    header = page.css_first("header")
    assert header is not None
    assert "paused" in header.text()
    assert "no credits left" in header.text()
    assert "while it was not over" in header.text()
    assert rows(page, "Tasks by state")["pending"] == ["2,500", f"50{NO_BREAK}%"]
    assert [item.text() for item in page.css(".legend")[0].css("li")][-1] == f"pending 50{NO_BREAK}%"


def test_days_without_charges_stand_in_the_chart() -> None:
    page = parsed(document())
    labels = [label.text() for label in page.css(".columns text")]
    assert labels == ["21 Sep", "22 Sep", "23 Sep", "24 Sep"]


def test_columns_are_as_tall_as_their_values() -> None:
    chart = Chart("c", "t", "d", "credits")
    drawn = stacked_columns(
        chart, ["a", "b"], {"one": [Decimal(10), Decimal(0)], "two": [Decimal(30), Decimal(20)]}
    )
    page = LexborHTMLParser(drawn)
    rects = [
        (r.attributes["class"], float(r.attributes["y"]), float(r.attributes["height"]))
        for r in page.css("rect")
    ]  # type: ignore[arg-type]
    assert [colour for colour, *_ in rects] == ["s0", "s1", "s1"]
    heights = [height for *_, height in rects]
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.2)
    assert heights[2] == pytest.approx(2 * heights[0], abs=0.2)
    assert rects[1][1] == pytest.approx(rects[0][1] - heights[1], abs=0.2)
    # 40 is the sum of the taller column, and the fewest ticks reach it.
    assert [label.text() for label in page.css(".axis text")] == ["0", "10", "20", "30", "40"]


@pytest.mark.parametrize("largest", [0, 1, 3, 5, 7, 99, 105_000, 999_999_999_999])
def test_an_axis_reaches_the_largest_value_and_little_more(largest: int) -> None:
    drawn = LexborHTMLParser(stacked_columns(Chart("c", "t", "d", "u"), ["a"], {"one": [largest]}))
    ticks = [int(label.text().replace(",", "")) for label in drawn.css(".axis text")]
    assert ticks[0] == 0
    assert 1 <= len(ticks) - 1 <= 5
    assert largest <= ticks[-1] <= max(1.7 * largest, 1)


def test_many_labels_leave_each_other_room() -> None:
    drawn = LexborHTMLParser(
        stacked_columns(Chart("c", "t", "d", "u"), [f"d{n}" for n in range(60)], {"one": [1] * 60})
    )
    labels = drawn.css(".columns text")
    assert len(labels) <= 10
    assert 3 <= len([one for one in labels if "roomy" not in (one.attributes["class"] or "")]) <= 5


@pytest.mark.parametrize(
    ("value", "shown"), [(1234567, "1,234,567"), (Decimal("0.000001"), "0.000001"), (Decimal(-5), "-5")]
)
def test_figures_are_never_rounded(value: int | Decimal, shown: str) -> None:
    assert figure(value) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, ""),
        (0, "0.0 s"),
        (119_900, "119.9 s"),
        (120_000, "2.0 min"),
        (100_000_000, "27.8 h"),
        (2 * 86_400_000, "2.0 d"),
    ],
)
def test_durations_are_in_a_unit_that_fits(ms: int | None, shown: str) -> None:
    assert duration(ms).replace(NO_BREAK, " ") == shown


def test_markup_is_text() -> None:
    assert text("<&>\"'\x0c") == "&lt;&amp;&gt;&quot;&#x27;\ufffd"
    assert "<b>" not in row_bar([(0, 1, "<b>")], 1)


def declarations(rules: list[Any], name: str) -> list[list[Any]]:
    """The values of a property wherever the style sheet declares it, those in media queries too."""
    found = []
    for rule in rules:
        if rule.type == "at-rule":
            inner = tinycss2.parse_rule_list(rule.content, skip_whitespace=True, skip_comments=True)
            found += declarations(inner, name)
            continue
        assert rule.type == "qualified-rule", rule
        for one in tinycss2.parse_declaration_list(rule.content, skip_whitespace=True, skip_comments=True):
            assert one.type == "declaration", one
            if one.name == name:
                found.append([token for token in one.value if token.type != "whitespace"])
    return found


RULES = tinycss2.parse_stylesheet(STYLE, skip_whitespace=True, skip_comments=True)


def test_no_letter_is_small() -> None:
    sizes = [
        token.value * {"px": 1, "rem": 16, "pt": 96 / 72}[token.unit]
        for name in ("font-size", "font")
        for value in declarations(RULES, name)
        for token in value
        if token.type == "dimension"
    ]
    assert len(sizes) >= 8
    assert min(size for size in sizes if size != pytest.approx(9 * 96 / 72)) >= TEXT_PX_MIN  # 9pt on paper


def test_colours_stand_out_from_their_background() -> None:
    """In light, in dark and on paper."""
    modes = re.findall(r":root\{([^}]*)\}", STYLE)
    assert len(modes) == 3
    for mode in modes:
        colours = dict(re.findall(r"--(\w+):(#\w+)", mode))
        for name in (f"c{n}" for n in range(8)):
            assert contrast(colours[name], colours["bg"]) >= 3, name
        assert contrast(colours["focus"] if "focus" in colours else colours["going"], colours["bg"]) >= 3
        for background in (colours["bg"], colours["panel"]):
            assert contrast(colours["fg"], background) >= 7
            for name in ("dim", "good", "going", "loud"):
                assert contrast(colours[name], background) >= 4.5, name
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
