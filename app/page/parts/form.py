"""Forms, each with the token of its session."""

from typing import Any

from htpy import Element, form, input

from app.page.session import FORM_TOKEN
from app.page.visit import Visit


class FormOf:
    """A form that is begun; its content goes in brackets, as htpy has it."""

    def __init__(self, visit: Visit, action: str, attributes: dict[str, Any]) -> None:
        self._visit = visit
        self._form = form(method="post", action=action, **attributes)

    def __getitem__(self, content: Any) -> Element:
        return self._form[input(type="hidden", name=FORM_TOKEN, value=self._visit.form_token), content]


def form_of(visit: Visit, action: str, **attributes: Any) -> FormOf:
    """A form that posts to an address of this page: `form_of(visit, "/runs")[…]`."""
    return FormOf(visit, action, attributes)
