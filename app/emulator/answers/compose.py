"""From a task to the bytes of its result: pick prepared members by seed, leave out what was not requested
(C-K)."""

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from app.emulator.answers import aimode, chatgpt, copilot, gemini, google, perplexity
from app.emulator.answers.phrases import QUERY_MARK
from app.emulator.answers.template import Generator, Member, Template, encode
from app.emulator.billing.pricing import PRODUCT_CLUSTERS_MAX, pages
from app.emulator.data import places
from app.emulator.data.editions import Edition
from app.emulator.data.google_url import query_parameters
from app.emulator.engine.seeded_draws import draw, purpose, word

VARIANTS = 32
"""Text and extras are picked separately, so 32 of each give 1,024 different answers per engine before the
prompt counts."""
REFUSAL_SHARE = 0.02
"""Short answers without sources, billed like any other (C-K.9)."""
MODEL_SHARE_2026 = 0.02
"""Row B33."""

_PICK = purpose("answer")
_REFUSAL = purpose("refusal")
_CLUSTERS = purpose("clusters")
_MODEL = purpose("model")
_LEADS = (
    "Here is what I found about {}:",
    "In short, regarding {}:",
    "Looking at {}, a few things stand out.",
    "There are several good answers to {}.",
    "This overview covers {}.",
    "About {}: opinions differ, but a pattern shows.",
)
_REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "I couldn't find reliable information on this topic. Could you rephrase the question?",
)
_GENERATORS: Mapping[str, Generator] = {
    "CHATGPT": chatgpt.generate,
    "GEMINI": gemini.generate,
    "COPILOT": copilot.generate,
    "GROK": copilot.generate_grok,
    "PERPLEXITY": perplexity.generate,
    "AIMODE": aimode.generate,
    "GOOGLE": google.generate_search,
    "GOOGLE_NEWS": google.generate_news,
}
_MARK = QUERY_MARK.encode()
_CORE = frozenset(
    {
        "organicResults",
        "newsResults",
        "sources",
        "citationPills",
        "searchQueries",
        "related_queries",
        "search_model_queries",
    }
)
_DESKTOP_ONLY = frozenset({"localResults", "localResultsMoreLink"})
_WITHOUT_TEXT = frozenset({"GOOGLE", "GOOGLE_NEWS"})


def clusters_returned(seed: int, number: int, task_type: str, payload: Mapping[str, Any]) -> int:
    """AI Mode product clusters in the answer: 0 to 6, and only with expandProducts (C-K.6)."""
    include = payload.get("include")
    if task_type != "AIMODE" or not include or include.get("expandProducts") is not True:
        return 0
    if _refused(seed, number):
        return 0  # a refusal shows no products, and only what is returned is billed (C-E.2)
    return word(seed, number, _CLUSTERS) % (PRODUCT_CLUSTERS_MAX + 1)


def _refused(seed: int, number: int) -> bool:
    return draw(seed, number, _REFUSAL) < REFUSAL_SHARE


class Answers:
    """Composes results. Templates are made when first needed and kept: 32 per engine and edition, about 1
    MB."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.html_base: str | None = None  # where HTML results lie; None: the provider's own hosts
        self.short = False  # every answer as short as an empty one; AI Mode's show what they bill
        self._templates: dict[tuple[str, str, int], Template] = {}

    def compose(
        self, task_type: str, edition: Edition, payload: Mapping[str, Any], number: int, link_id: str
    ) -> bytes:
        """The flat `result` of a task as JSON bytes; the same arguments give the same bytes."""
        include: Mapping[str, Any] = payload.get("include") or {}
        bits = word(self._seed, number, _PICK)
        if self.short and task_type != "AIMODE":
            return self._short(task_type, bits)
        subject = str(payload.get("prompt") or payload.get("query") or payload.get("url") or "")
        parts: list[bytes] = []
        if task_type not in _WITHOUT_TEXT:
            if _refused(self._seed, number):
                return self._refusal(task_type, bits)
            self._text(parts, task_type, edition, include, subject, bits)
        else:
            include = self._overview_flags(include, payload)
        core = self._template(task_type, edition, bits % VARIANTS)
        extra = self._template(task_type, edition, (bits >> 8) % VARIANTS)
        counts = self._count(task_type, payload, number)
        searching = payload.get("disableWebSearch") is not True
        for own, other in zip(core.members, extra.members, strict=True):
            member = own if own.key in _CORE else other
            if member.needs is not None and not self._wanted(include, member.needs):
                continue
            if member.key in _DESKTOP_ONLY and payload.get("device", "desktop") != "desktop":
                continue
            if not searching and member.key in _CORE:
                if member.key == "sources":
                    parts.append(b'"sources":[]')
                continue
            parts.append(self._value(member, include, counts))
        if include.get("html") is True:
            parts.append(self._html(task_type, edition, payload, link_id))
        answer = b"{" + b",".join(parts) + b"}"
        if task_type in _WITHOUT_TEXT:
            query = query_parameters(subject).get("q", "") if "url" in payload else subject
            answer = answer.replace(_MARK, msgspec.json.encode(query[:80].strip())[1:-1])
        return answer

    def _text(
        self,
        parts: list[bytes],
        task_type: str,
        edition: Edition,
        include: Mapping[str, Any],
        subject: str,
        bits: int,
    ) -> None:
        template = self._template(task_type, edition, bits % VARIANTS)
        if task_type in ("CHATGPT", "GROK"):
            named = edition.chatgpt_model or draw(self._seed, bits, _MODEL) < MODEL_SHARE_2026
            name = b'"gpt-5-3-mini"' if task_type == "CHATGPT" else b'"grok-4-auto"'
            parts.append(b'"model":' + (name if named or task_type == "GROK" else b"null"))
        lead = _LEADS[(bits >> 16) % len(_LEADS)].format("“" + subject[:300].strip() + "”")
        opening = msgspec.json.encode(lead)[1:-1]
        parts.append(b'"text":"' + opening + template.text + b'"')
        if include.get("markdown") is True:
            parts.append(b'"markdown":"' + opening + template.markdown + b'"')

    def _short(self, task_type: str, bits: int) -> bytes:
        if task_type in _WITHOUT_TEXT:
            return b'{"organicResults":[]}' if task_type == "GOOGLE" else b'{"newsResults":[]}'
        return self._refusal(task_type, bits)

    def _refusal(self, task_type: str, bits: int) -> bytes:
        text = msgspec.json.encode(_REFUSALS[(bits >> 16) % len(_REFUSALS)])
        model = b'"model":null,' if task_type in ("CHATGPT", "GROK") else b""
        return b"{" + model + b'"text":' + text + b',"sources":[]}'

    def _template(self, task_type: str, edition: Edition, variant: int) -> Template:
        key = (task_type, edition.name, variant)
        template = self._templates.get(key)
        if template is None:
            rng = random.Random(f"{self._seed}/{task_type}/{edition.name}/{variant}")  # noqa: S311
            template = self._templates[key] = encode(_GENERATORS[task_type](rng, edition))
        return template

    def _count(self, task_type: str, payload: Mapping[str, Any], number: int) -> int:
        if task_type == "AIMODE":
            return clusters_returned(self._seed, number, task_type, payload)
        return pages(payload) if task_type in _WITHOUT_TEXT else 0

    @staticmethod
    def _wanted(include: Mapping[str, Any], flag: str) -> bool:
        return include.get(flag, False) is not False

    @staticmethod
    def _value(member: Member, include: Mapping[str, Any], count: int) -> bytes:
        if member.pieces is not None:
            name = msgspec.json.encode(member.key)
            return name + b":[" + b",".join(member.pieces[:count]) + b"]"
        if member.flag is not None and include.get(member.flag):
            return member.when_set
        return member.whole

    @staticmethod
    def _overview_flags(include: Mapping[str, Any], payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Where Google shows no AI Overview the request succeeds without the block (C-K.7)."""
        overview = include.get("aioverview", False)
        if overview is False:
            return include
        country = str(payload.get("gl") or payload.get("country") or "US").upper()
        if country not in places.offered("aioverview"):
            return {name: value for name, value in include.items() if name != "aioverview"}
        inside = isinstance(overview, dict) and overview.get("markdown") is True
        if inside or include.get("markdown") is True:
            return {**include, google.OVERVIEW_MARKDOWN: True}
        return include

    def _html(self, task_type: str, edition: Edition, payload: Mapping[str, Any], link_id: str) -> bytes:
        """HTML text inline, one link, or one link per page (row B30)."""
        if edition.html == "inline":
            return b'"html":' + msgspec.json.encode(
                f"<!doctype html><html><body><!-- {link_id} --></body></html>"
            )
        host = self.html_base or f"https://{edition.html}.cloro.dev/results"
        if task_type not in _WITHOUT_TEXT:
            return b'"html":' + msgspec.json.encode(f"{host}/{link_id}/page-1.html")
        links = [f"{host}/{link_id}/page-{page}.html" for page in range(1, pages(payload) + 1)]
        return b'"html":' + msgspec.json.encode(links)
