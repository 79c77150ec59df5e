"""The rules for a request, engine by engine (C-K)."""

from typing import Any

import pytest

from app.domain.engines.places import COUNTRIES, STATES, country_remedy
from app.domain.engines.rules import (
    ENGINES,
    FIELDS,
    TASK_TYPES,
    check,
    display,
    find_task_type,
    task_type_problem,
)

URL = "https://www.google.de/search?q=crm&gl=de"


def ask(task_type: str, **fields: Any) -> dict[str, Any]:
    """A minimal good request, with some fields changed; None takes a field out."""
    payload = {ENGINES[task_type].subject: "crm", "country": "US"} | fields
    return {name: value for name, value in payload.items() if value is not None}


def fields_of(task_type: str, payload: dict[str, Any], priority: Any = 1) -> list[str]:
    problems = check(task_type, payload, priority)
    assert all(problem.problem and problem.remedy for problem in problems)
    return [problem.field for problem in problems]


@pytest.mark.parametrize(
    ("text", "task_type"),
    [
        *((name, name) for name in TASK_TYPES),
        *((name.lower(), name) for name in TASK_TYPES),
        ("google/news", "GOOGLE_NEWS"),
        ("google-news", "GOOGLE_NEWS"),
        (" Google News ", "GOOGLE_NEWS"),
        ("ai mode", "AIMODE"),
        ("AI_MODE", "AIMODE"),
        ("ChatGPT", "CHATGPT"),
        ("", None),
        ("bing", None),
        ("GOOGLE_", "GOOGLE"),
        ("chat gpt 5", None),
    ],
)
def test_any_spelling_of_an_engine_is_found(text: str, task_type: str | None) -> None:
    assert find_task_type(text) == task_type


def test_a_misspelt_engine_gets_the_nearest_name() -> None:
    assert task_type_problem("CHATGTP").remedy == "use CHATGPT"
    assert "PERPLEXITY" in task_type_problem("bing").remedy


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_minimal_request_is_good(task_type: str) -> None:
    assert check(task_type, ask(task_type)) == []


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_the_length_of_what_is_asked(task_type: str) -> None:
    subject = ENGINES[task_type].subject
    for good in ("x", "x" * 10_000, "é" * 10_000):
        assert fields_of(task_type, ask(task_type, **{subject: good})) == []
    for bad in ("", "  \n", "x" * 10_001, 5, ["x"], "a\x00b", "\ud800", "x\udfff"):
        assert fields_of(task_type, ask(task_type, **{subject: bad})) == [subject]
    assert fields_of(task_type, ask(task_type, **{subject: None})) == [subject]


def test_no_problem_quotes_the_prompt() -> None:
    secret = "our unreleased product\x00" + "x" * 10_000
    for task_type in TASK_TYPES:
        for problem in check(task_type, ask(task_type, **{ENGINES[task_type].subject: secret})):
            assert "unreleased" not in " ".join(problem)


BLOCKED = {
    "CHATGPT": "CN HK IR MO RU VE",
    "GEMINI": "BY CN RU",
    "GROK": "BY CN HK RU VE",
    "COPILOT": "BY CN RU SY VE",
    "PERPLEXITY": "CN",
    "AIMODE": "CN CU IR KP",
    "GOOGLE": "",
    "GOOGLE_NEWS": "",
}


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_countries_and_where_an_engine_is_offered(task_type: str) -> None:
    refused = {code for code in COUNTRIES if check(task_type, ask(task_type, country=code))}
    assert refused == set(BLOCKED[task_type].split())
    for bad in ("UK", "us", "", "U", "USA", "ZZ", 7, None):
        assert fields_of(task_type, ask(task_type, country=bad)) == ["country"]


def test_the_lists_are_complete() -> None:
    assert len(COUNTRIES) == 250
    assert len(STATES) == 51
    assert {"NO", "XK", "GB"} <= COUNTRIES
    assert "UK" not in COUNTRIES


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("UK", "use GB"), ("uk", "use GB"), ("us", "use US"), ("usa", "use US"), (" de ", "use DE")],
)
def test_a_wrong_country_code_gets_the_right_one(text: str, remedy: str) -> None:
    assert country_remedy(text) == remedy


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_states_only_in_the_us_and_only_where_they_are_taken(task_type: str) -> None:
    taken = {"CHATGPT", "COPILOT", "GEMINI", "PERPLEXITY", "GROK"}
    assert fields_of(task_type, ask(task_type, state="CA")) == ([] if task_type in taken else ["state"])
    if task_type in taken:
        for bad in ("ca", "ZZ", "", 5, "California"):
            assert fields_of(task_type, ask(task_type, state=bad)) == ["state"]
        assert fields_of(task_type, ask(task_type, state="CA", country="DE")) == ["state"]


INCLUDE = {
    "CHATGPT": "html markdown rawResponse searchQueries ads shopping",
    "GEMINI": "html markdown rawResponse",
    "COPILOT": "html markdown rawResponse",
    "GROK": "html markdown rawResponse",
    "PERPLEXITY": "html markdown rawResponse",
    "AIMODE": "html markdown expandProducts googleGoto",
    "GOOGLE": "html aioverview paaAioverview googleGoto",
    "GOOGLE_NEWS": "html",
}


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_include_takes_the_names_of_its_engine(task_type: str) -> None:
    every = {name for names in INCLUDE.values() for name in names.split()} | {"Markdown", "state", ""}
    taken = {name for name in every if not check(task_type, ask(task_type, include={name: True}))}
    assert taken == set(INCLUDE[task_type].split())
    assert fields_of(task_type, ask(task_type, include={})) == []
    for bad in ("html", ["html"], True, {"html": "true"}, {"html": 1}, {"html": None}, {"html": {}}):
        assert fields_of(task_type, ask(task_type, include=bad)) == ["include"]


def test_the_overview_is_an_object_or_a_flag() -> None:
    for good in ({}, {"markdown": True}, {"markdown": False}, True, False):
        assert fields_of("GOOGLE", ask("GOOGLE", include={"aioverview": good})) == []
    for bad in ({"html": True}, {"markdown": "yes"}, "markdown", None, []):
        assert fields_of("GOOGLE", ask("GOOGLE", include={"aioverview": bad})) == ["include"]


def test_a_misspelt_include_gets_the_nearest_name() -> None:
    assert check("CHATGPT", ask("CHATGPT", include={"markdwon": True}))[0].remedy == "use markdown"
    assert check("GOOGLE_NEWS", ask("GOOGLE_NEWS", include={"xyz": True}))[0].remedy == "use html"


@pytest.mark.parametrize("task_type", ["GOOGLE", "GOOGLE_NEWS"])
def test_pages(task_type: str) -> None:
    for good in (1, 10):
        assert fields_of(task_type, ask(task_type, pages=good)) == []
    for bad in (0, 11, -1, 2.5, "3", True, [1]):
        assert fields_of(task_type, ask(task_type, pages=bad)) == ["pages"]


@pytest.mark.parametrize(
    ("task_type", "devices"),
    [
        ("AIMODE", "desktop mobile"),
        ("GOOGLE", "desktop mobile ios android"),
        ("GOOGLE_NEWS", "desktop mobile ios android"),
        ("CHATGPT", ""),
        ("GEMINI", ""),
    ],
)
def test_devices(task_type: str, devices: str) -> None:
    every = ("desktop", "mobile", "ios", "android", "Desktop", "tablet", 1)
    taken = [device for device in every if not check(task_type, ask(task_type, device=device))]
    assert taken == devices.split()


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_field_of_another_engine_is_named(task_type: str) -> None:
    samples: dict[str, Any] = {
        "prompt": "x",
        "query": "x",
        "state": "CA",
        "pages": 2,
        "gl": "us",
        "hl": "en",
        "location": "Berlin",
        "uule": "w+x",
        "device": "mobile",
        "legacy": True,
        "disableWebSearch": False,
        "url": URL,
        "extra": 1,
    }
    for name, value in samples.items():
        if name not in FIELDS[task_type]:
            assert fields_of(task_type, ask(task_type, **{name: value})) == [name]
    problem = check("GEMINI", ask("GEMINI", pages=2))[0]
    assert problem.remedy == "leave it out; only GOOGLE, GOOGLE_NEWS take it"


@pytest.mark.parametrize("task_type", ["AIMODE", "GOOGLE", "GOOGLE_NEWS"])
def test_gl_instead_of_or_with_country(task_type: str) -> None:
    for gl in ("us", "US"):
        assert fields_of(task_type, ask(task_type, country=None, gl=gl)) == []
        assert fields_of(task_type, ask(task_type, gl=gl)) == []
    assert fields_of(task_type, ask(task_type, gl="de")) == ["gl"]
    assert fields_of(task_type, ask(task_type, country=None, gl="uk")) == ["gl"]
    assert fields_of(task_type, ask(task_type, country=None)) == ["country"]


def test_location_or_uule() -> None:
    for task_type in ("AIMODE", "GOOGLE"):
        assert fields_of(task_type, ask(task_type, location="Berlin")) == []
        assert fields_of(task_type, ask(task_type, uule="w+CAIQ")) == []
        assert fields_of(task_type, ask(task_type, location="Berlin", uule="w")) == ["uule"]
        for bad in ("", " ", 5, "x" * 10_001, "a\x00"):
            assert fields_of(task_type, ask(task_type, location=bad)) == ["location"]
            assert fields_of(task_type, ask(task_type, hl=bad)) == ["hl"]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        (URL, True),
        ("http://google.co.uk/search?gl=gb&q=x", True),
        ("https://www.google.com/search?q=x+y&num=30&gl=DE#frag", True),
        ("https://news.google.com/search?q=x&gl=de", False),
        ("https://www.google.example/search?q=x&gl=de", False),
        ("https://www.bing.com/search?q=x&gl=de", False),
        ("https://www.google.com/webhp?q=x&gl=de", False),
        ("https://www.google.com/search?gl=de", False),
        ("https://www.google.com/search?q=+&gl=de", False),
        ("https://www.google.com/search?q=x&tbm=nws&gl=de", False),
        ("https://www.google.com/search?q=x&gl=uk", False),
        ("ftp://www.google.com/search?q=x&gl=de", False),
        ("www.google.com/search?q=x&gl=de", False),
        ("https://[broken/search?q=x&gl=de", False),
        ("", False),
    ],
)
def test_a_google_address(url: str, good: bool) -> None:
    fields = fields_of("GOOGLE", {"url": url})
    assert (fields == []) is good
    assert set(fields) <= {"url", "country"}


def test_an_address_that_is_no_text() -> None:
    assert fields_of("GOOGLE", {"url": 5, "country": "US"}) == ["url"]


def test_an_address_owns_its_values() -> None:
    assert fields_of("GOOGLE", {"url": URL, "query": "x"}) == ["query"]
    for name, value in (("location", "Berlin"), ("uule", "w"), ("pages", 2)):
        assert fields_of("GOOGLE", {"url": URL, name: value}) == [name]
    assert fields_of("GOOGLE", {"url": URL, "country": "US"}) == ["country"]
    assert fields_of("GOOGLE", {"url": URL, "gl": "us"}) == ["gl"]
    assert fields_of("GOOGLE", {"url": URL, "country": "DE", "hl": "en"}) == []
    assert fields_of("GOOGLE", {"url": f"{URL}&hl=de", "hl": "DE"}) == []
    assert fields_of("GOOGLE", {"url": f"{URL}&hl=de", "hl": "en"}) == ["hl"]
    assert fields_of("GOOGLE", {"url": "https://www.google.com/search?q=x"}) == ["country"]


def test_flags_of_chatgpt() -> None:
    for flag in ("legacy", "disableWebSearch"):
        assert fields_of("CHATGPT", ask("CHATGPT", **{flag: True})) == []
        for bad in ("true", 1, {}):
            assert fields_of("CHATGPT", ask("CHATGPT", **{flag: bad})) == [flag]


def test_priority() -> None:
    for good in (1, 10):
        assert fields_of("GROK", ask("GROK"), good) == []
    for bad in (0, 11, 2.0, "5", True, None):
        assert fields_of("GROK", ask("GROK"), bad) == ["priority"]


def test_what_is_shown_is_short_and_printable() -> None:
    assert display("a\x1b[31mb") == "'a?[31mb'"
    assert display("x" * 500) == f"'{'x' * 40}…'"
    assert display(5) == "'5'"
