"""C-K.0 to C-K.8: what requests may hold, with field paths and messages."""

from typing import Any

import pytest

from app.emulator.checks.payload import check_payload
from app.emulator.checks.task_body import check_task
from app.emulator.checks.validation import Leniency
from app.emulator.data.editions import EDITIONS
from app.emulator.data.engine_table import ENGINES, TASK_TYPES
from app.emulator.data.google_url import problem_with_url

STRICT, LENIENT = Leniency(), Leniency(unknown_fields=True)
NEW, OLD = EDITIONS["2026"], EDITIONS["2025"]
GOOGLE = "https://www.google.com/search?q=shoes"


def problems(
    task_type: str, payload: dict[str, Any], edition: Any = NEW, prefix: str = ""
) -> list[tuple[str, str]]:
    found = check_payload(task_type, payload, edition, STRICT, prefix)
    return [(problem["field"], problem["message"]) for problem in found]


def ai(**over: Any) -> dict[str, Any]:
    return {"prompt": "best shoes", "country": "US", **over}


def search(**over: Any) -> dict[str, Any]:
    return {"query": "best shoes", "country": "US", **over}


def valid(task_type: str, **over: Any) -> dict[str, Any]:
    return search(**over) if ENGINES[task_type].subject == "query" else ai(**over)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_k0_smallest_request(task_type: str) -> None:
    assert problems(task_type, valid(task_type)) == []


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_k0_subject(task_type: str) -> None:
    name = ENGINES[task_type].subject
    title = name.capitalize()
    assert problems(task_type, valid(task_type) | {name: ""}) == [(name, f"{title} cannot be empty")]
    too_long = f"{title} is too long (max 10,000 characters)"
    assert problems(task_type, valid(task_type) | {name: "x" * 10_001}) == [(name, too_long)]
    assert problems(task_type, valid(task_type) | {name: "x" * 10_000}) == []
    wrong = "Invalid input: expected string, received number"
    assert problems(task_type, valid(task_type) | {name: 7}) == [(name, wrong)]


def test_k0_blank_passes_the_length_test() -> None:
    """It becomes empty: accepted as a prompt, missing as a Google query."""
    assert problems("CHATGPT", ai(prompt="  ")) == []
    assert problems("GOOGLE", search(query="  ")) == [("", "Provide either query or url")]


@pytest.mark.parametrize("task_type", ["CHATGPT", "GEMINI", "COPILOT", "GROK", "PERPLEXITY"])
def test_k0_country_of_ai_engines(task_type: str) -> None:
    missing = "Invalid input: expected string, received undefined"
    assert problems(task_type, {"prompt": "x"}, prefix="payload.") == [("payload.country", missing)]
    assert problems(task_type, {"prompt": "x"}, OLD) == []
    assert problems(task_type, ai(country="us"))[0][0] == "country"
    assert "not supported yet" in problems(task_type, ai(country="QQ"))[0][1]
    assert "not available" in problems(task_type, ai(country="CN"))[0][1]
    assert problems(task_type, ai(gl="US"))[0] == ("gl", 'Unrecognized key: "gl"')


@pytest.mark.parametrize("task_type", ["AIMODE", "GOOGLE", "GOOGLE_NEWS"])
def test_k0_gl_of_the_google_family(task_type: str) -> None:
    body = valid(task_type)
    del body["country"]
    neither = [("gl", "Provide gl (or country, which is deprecated)")]
    assert problems(task_type, body) == neither
    assert problems(task_type, body | {"gl": "us"}) == []
    assert problems(task_type, body | {"gl": "US", "country": "US"}) == []
    field, message = problems(task_type, body | {"gl": "DE", "country": "US"})[0]
    assert field == "gl"
    assert "different values" in message
    assert "not supported yet" in problems(task_type, body | {"gl": "qq"})[0][1]
    assert problems(task_type, body | {"hl": "pt-BR"}) == neither
    assert problems(task_type, body | {"gl": "us", "hl": "pt-BR"}) == []


def test_k0_state() -> None:
    assert problems("CHATGPT", ai(state="CA")) == []
    message = "`state` is not supported for country DE."
    assert problems("CHATGPT", ai(country="DE", state="CA")) == [("state", message)]
    field, message = problems("GEMINI", ai(state="XX"))[0]
    assert field == "state"
    assert "GET /v1/states" in message
    assert problems("GEMINI", ai(state="ca"))[0][0] == "state"
    for task_type in ("AIMODE", "GOOGLE", "GOOGLE_NEWS"):
        assert problems(task_type, valid(task_type, state="CA"))[0] == ("state", 'Unrecognized key: "state"')


def test_k0_location_and_uule() -> None:
    both = [("", "Cannot set both location and uule; provide only one")]
    for task_type in ("AIMODE", "GOOGLE"):
        assert problems(task_type, valid(task_type, location="Berlin")) == []
        assert problems(task_type, valid(task_type, uule="w+CAIQ")) == []
        assert problems(task_type, valid(task_type, location="Berlin", uule="w+CAIQ")) == both
    assert problems("GOOGLE_NEWS", search(location="Berlin"))[0][0] == "location"


def test_k0_devices() -> None:
    for device in ("desktop", "mobile", "ios", "android"):
        assert problems("GOOGLE", search(device=device)) == []
        assert (problems("AIMODE", ai(device=device)) == []) == (device in ("desktop", "mobile"))
    assert problems("GOOGLE", search(device="watch"))[0][0] == "device"
    assert problems("CHATGPT", ai(device="desktop"))[0][0] == "device"


def test_k0_unknown_keys() -> None:
    """C-L row L2: refused by default, ignored by a switch."""
    for body, field in ((ai(zz=1), "zz"), (ai(include={"zz": True}), "include.zz")):
        assert [found[0] for found in problems("CHATGPT", body)] == [field]
        assert check_payload("CHATGPT", body, NEW, LENIENT) == []


def test_k0_no_coercion() -> None:
    assert problems("GOOGLE", search(pages="3"))[0] == (
        "pages",
        "Invalid input: expected number, received string",
    )
    wrong = "Invalid input: expected boolean, received string"
    assert problems("CHATGPT", ai(include={"markdown": "true"})) == [("include.markdown", wrong)]
    assert problems("CHATGPT", ai(include=[]))[0] == (
        "include",
        "Invalid input: expected object, received array",
    )
    assert problems("CHATGPT", ai(include=None))[0][0] == "include"


@pytest.mark.parametrize("pages", [0, 11, 2.5, -1, True, None])
def test_k7_pages(pages: Any) -> None:
    """2.5 is refused (L37)."""
    for task_type in ("GOOGLE", "GOOGLE_NEWS"):
        assert [field for field, _ in problems(task_type, search(pages=pages))] == ["pages"]
        assert problems(task_type, search(pages=3)) == []


@pytest.mark.parametrize(
    ("task_type", "flags"),
    [
        ("CHATGPT", {"html", "markdown", "rawResponse", "searchQueries", "ads", "shopping"}),
        ("GEMINI", {"html", "markdown", "rawResponse"}),
        ("COPILOT", {"html", "markdown", "rawResponse"}),
        ("GROK", {"html", "markdown", "rawResponse"}),
        ("PERPLEXITY", {"html", "markdown", "rawResponse"}),
        ("AIMODE", {"html", "markdown", "expandProducts", "googleGoto"}),
        ("GOOGLE", {"html", "aioverview", "paaAioverview", "googleGoto"}),
        ("GOOGLE_NEWS", {"html"}),
    ],
)
def test_k_include_flags(task_type: str, flags: set[str]) -> None:
    assert ENGINES[task_type].include == flags
    assert problems(task_type, valid(task_type, include=dict.fromkeys(flags, True))) == []


def test_k1_chatgpt_switches() -> None:
    assert problems("CHATGPT", ai(legacy=True, disableWebSearch=False)) == []
    assert problems("CHATGPT", ai(legacy="yes"))[0][0] == "legacy"
    assert problems("GEMINI", ai(legacy=True))[0][0] == "legacy"


def test_k7_aioverview() -> None:
    for value in ({}, {"markdown": True}, True, False):
        assert problems("GOOGLE", search(include={"aioverview": value})) == []
    assert (
        problems("GOOGLE", search(include={"aioverview": {"markdown": 1}}))[0][0]
        == "include.aioverview.markdown"
    )
    assert problems("GOOGLE", search(include={"aioverview": {"x": True}}))[0][0] == "include.aioverview.x"
    assert problems("GOOGLE", search(include={"aioverview": "yes"}))[0][0] == "include.aioverview"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "url must be a valid absolute http(s) URL"),
        ("ftp://www.google.com/search?q=x", "url must be a valid absolute http(s) URL"),
        ("https://www.google.com:x/search?q=x", "url must be a valid absolute http(s) URL"),
        (
            "https://bing.com/search?q=x",
            "url must be a Google web search host, e.g. www.google.com or google.co.uk",
        ),
        (
            "https://news.google.com/search?q=x",
            "url must be a Google web search host, e.g. www.google.com or google.co.uk",
        ),
        (
            "https://images.google.com/search?q=x",
            "url must be a Google web search host, e.g. www.google.com or google.co.uk",
        ),
        ("https://google.com/maps?q=x", "url path must be /search"),
        ("https://google.com/search", "url must include a non-empty q parameter"),
        ("https://google.com/search?q=%20", "url must include a non-empty q parameter"),
    ],
)
def test_k7_bad_urls(url: str, message: str) -> None:
    assert problem_with_url(url) == message


def test_k7_urls_with_tbm() -> None:
    assert "must not set tbm" in (problem_with_url(f"{GOOGLE}&tbm=isch") or "")
    assert "/v1/monitor/google/news" in (problem_with_url(f"{GOOGLE}&tbm=nws") or "")


@pytest.mark.parametrize(
    "host", ["google.com", "www.google.com", "google.co.uk", "www.google.com.br", "www.google.de"]
)
def test_k7_good_urls(host: str) -> None:
    assert problems("GOOGLE", {"url": f"https://{host}/search?q=x&gl=us"}) == []


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"query": "other"}, "query"),
        ({"query": "shoes"}, None),
        ({"location": "Berlin"}, "location"),
        ({"uule": "w+X"}, "uule"),
        ({"pages": 2}, "pages"),
        ({"pages": 1}, None),
        ({"hl": "de"}, None),
        ({"gl": "DE"}, "gl"),
        ({"country": "US"}, None),
    ],
)
def test_k7_url_owns_its_values(extra: dict[str, Any], field: str | None) -> None:
    found = problems("GOOGLE", {"url": f"{GOOGLE}&gl=us"} | extra)
    assert [item[0] for item in found] == ([] if field is None else [field])


def test_k7_hl_next_to_a_url_must_agree() -> None:
    assert problems("GOOGLE", {"url": f"{GOOGLE}&gl=us&hl=de", "hl": "DE"}) == []
    assert problems("GOOGLE", {"url": f"{GOOGLE}&gl=us&hl=de", "hl": "en"})[0][0] == "hl"


def test_k7_country_of_a_url() -> None:
    missing = [("gl", "Provide gl, or include gl= in the url so it can be derived")]
    assert problems("GOOGLE", {"url": GOOGLE}) == missing
    assert problems("GOOGLE", {"url": GOOGLE, "gl": "us"}) == []
    assert "not supported" in problems("GOOGLE", {"url": f"{GOOGLE}&gl=qq"})[0][1]


def test_k7_urls_that_are_none() -> None:
    """One complaint about the URL, and none about what cannot be read from it."""
    assert problems("GOOGLE", {"url": 7, "gl": "us"}) == [
        ("url", "Invalid input: expected string, received number")
    ]
    assert problems("GOOGLE", {"url": "https://[", "gl": "us"}) == [
        ("url", "url must be a valid absolute http(s) URL")
    ]
    assert problems("GOOGLE", {"url": "https://bing.com/search?q=x", "gl": "us"})[0][0] == "url"


def test_k0_gl_must_be_text() -> None:
    wrong = "Invalid input: expected string, received number"
    assert problems("GOOGLE_NEWS", {"query": "x", "gl": 7}) == [("gl", wrong)]
    assert problems("GOOGLE_NEWS", {"query": "x", "country": 7}) == [("country", wrong)]


def test_k7_neither_query_nor_url() -> None:
    assert problems("GOOGLE", {"country": "US"}) == [("", "Provide either query or url")]


def test_k6_countries_of_ai_mode() -> None:
    for code in ("CN", "CU", "IR", "KP"):
        assert problems("AIMODE", ai(country=code))[0][0] == "country"
        assert problems("GOOGLE", search(country=code)) == []


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"taskType": "chatgpt"}, "taskType"),
        ({"taskType": None}, "taskType"),
        ({"payload": []}, "payload"),
        ({"priority": 0}, "priority"),
        ({"priority": 11}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "x" * 256}, "idempotencyKey"),
        ({"idempotencyKey": "a\nb"}, "idempotencyKey"),
        ({"idempotencyKey": 5}, "idempotencyKey"),
        ({"webhook": "https://a.example"}, "webhook"),
        ({"webhook": {}}, "webhook.url"),
        ({"webhook": {"url": "/relative"}}, "webhook.url"),
        ({"webhook": {"url": "https://a.example", "secret": "x"}}, "webhook.secret"),
        ({"metadata": {}}, "metadata"),
    ],
)
def test_g1_task_object(over: dict[str, Any], field: str) -> None:
    body = {"taskType": "CHATGPT", "payload": ai()} | over
    assert [problem["field"] for problem in check_task(body, NEW, STRICT)] == [field]


def test_g1_good_task_objects() -> None:
    body = {"taskType": "CHATGPT", "payload": ai(), "priority": 10, "idempotencyKey": "x" * 255}
    assert check_task(body | {"webhook": {"url": "http://127.0.0.1:8000/hook"}}, NEW, STRICT) == []
    assert check_task(body | {"priority": 2.0, "surprise": 1}, NEW, LENIENT) == []


def test_g1_not_an_object() -> None:
    for body in ([], "x", 7, None):
        assert check_task(body, NEW, STRICT)[0]["field"] == ""
