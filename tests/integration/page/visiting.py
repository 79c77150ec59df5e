"""What tests of the page share: somebody with a browser's cookies, and what they see."""

import re
from dataclasses import dataclass
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from tests.integration.api.asking import Api


@dataclass
class Seen:
    """A page, read to its end."""

    status: int
    headers: Any
    body: str

    @property
    def tree(self) -> LexborHTMLParser:
        return LexborHTMLParser(self.body)

    @property
    def text(self) -> str:
        """What a reader reads of the page's own part, its spaces made one."""
        main = self.tree.css_first("main")
        assert main is not None
        return re.sub(r"\s+", " ", main.text(separator=" ")).strip()

    @property
    def form_token(self) -> str:
        field = self.tree.css_first("input[name=form_token]")
        return field.attributes["value"] or "" if field else ""


@dataclass
class Visitor:
    """A browser, as far as HTTP goes."""

    api: Api

    async def look(self, path: str, **options: Any) -> Seen:
        return await self._ask("GET", path, **options)

    async def send(self, path: str, form: dict[str, str], **options: Any) -> Seen:
        return await self._ask("POST", path, data=form, **options)

    async def post(self, path: str, body: Any, **options: Any) -> Seen:
        """A form with a file, or what is to look like one."""
        return await self._ask("POST", path, data=body, **options)

    async def act(self, path: str, form: dict[str, str] | None = None, **options: Any) -> Seen:
        """Send a form of this session."""
        seen = await self.look("/")
        return await self.send(path, {"form_token": seen.form_token, **(form or {})}, **options)

    async def sign_in(self, scope: str = "operate", account: str | None = None) -> Seen:
        seen = await self.send("/sign-in", {"token": await self.api.token(scope, account)})
        assert seen.status == 303, seen.body
        return seen

    @property
    def cookies(self) -> list[Any]:
        return list(self.api.client.session.cookie_jar)

    async def _ask(self, method: str, path: str, **options: Any) -> Seen:
        async with self.api.client.request(method, path, allow_redirects=False, **options) as response:
            return Seen(response.status, response.headers, await response.text())
