"""`/v1/monitor/*`, the oldest run endpoints, and the redirect resolver (C-A, C-G.7, rows B2, B28, B50,
B52)."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from app.emulator.checks.validation import Problem, absolute_http_url, unknown_keys, wrong_type
from app.emulator.data.engine_table import ENGINES
from app.emulator.data.google_url import query_parameters
from app.emulator.engine import errors
from app.emulator.engine.emulator import Emulator
from app.emulator.http.exchange import Exchange, Handler
from app.emulator.http.sync_calls import SyncCalls

_GOTO_HOSTS = frozenset({"google.com", "www.google.com"})
_GOTO_PATHS = frozenset({"/goto", "/url"})
_TYPE_OF_MODEL = {engine.path: task_type for task_type, engine in ENGINES.items()}


class MonitorRoutes:
    """Handlers that hold the connection until the answer is there."""

    def __init__(self, emulator: Emulator, calls: SyncCalls) -> None:
        self._emulator = emulator
        self._calls = calls

    def engine(self, task_type: str) -> Handler:
        """POST /v1/monitor/{provider}."""

        async def handle(exchange: Exchange) -> bytes:
            return await self._calls.run(exchange, task_type, await exchange.json(400))

        return handle

    async def news_alias(self, exchange: Exchange) -> bytes:
        """POST /v1/monitor/google-news (row B52): the vendor's newest notes name it so."""
        return await self._calls.run(exchange, "GOOGLE_NEWS", await exchange.json(400))

    async def run(self, exchange: Exchange) -> bytes:
        """POST /v1/run and /v1/monitor of the oldest layer: the engine is a field (row B2)."""
        if not exchange.key.edition.run_endpoint:
            raise errors.route_not_found(exchange.request.path)
        body: Any = await exchange.json(400)
        model = "chatgpt"
        if isinstance(body, dict):
            model = body.pop("model", model)
        if not isinstance(model, str) or model not in _TYPE_OF_MODEL:
            raise errors.validation_failed(400, [{"field": "model", "message": "Unknown model"}])
        return await self._calls.run(exchange, _TYPE_OF_MODEL[model], body)

    async def goto(self, exchange: Exchange) -> bytes:
        """POST /v1/monitor/google/goto: free, without a slot (C-G.7)."""
        if not exchange.key.edition.goto:
            raise errors.route_not_found(exchange.request.path)
        body = await exchange.json(400)
        problems = self._goto_problems(body)
        if problems:
            raise errors.validation_failed(400, problems)
        parameters = query_parameters(body["url"])
        target = parameters.get("url") or parameters.get("q") or ""
        if not absolute_http_url(target):
            details = {"service": "google"}
            raise errors.RefusalError(502, "EXTERNAL_SERVICE_ERROR", "goto resolve request failed", details)
        return msgspec.json.encode({"url": target})

    def _goto_problems(self, body: object) -> list[Problem]:
        problems: list[Problem] = []
        if not isinstance(body, dict):
            return [{"field": "", "message": "Invalid input: expected object"}]
        if not self._emulator.options.switches.leniency.unknown_fields:
            unknown_keys(body, frozenset({"url"}), "", problems)
        url = body.get("url")
        if not isinstance(url, str):
            problems.append({"field": "url", "message": wrong_type("string", body, "url")})
        elif not absolute_http_url(url):
            problems.append({"field": "url", "message": "url must be a valid absolute http(s) URL"})
        else:
            parts = urlsplit(url)
            if parts.hostname not in _GOTO_HOSTS or parts.path not in _GOTO_PATHS:
                message = "url must be a google.com link with the path /goto or /url"
                problems.append({"field": "url", "message": message})
        return problems
