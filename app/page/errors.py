"""What went wrong, as a page: what, why, what to do, and the id by which the log has it."""

from htpy import Node, a, code, li, p, ul

from app.api.problems import INVALID, Problem
from app.page.parts.words import sentence
from app.page.visit import Drawn

TITLES = {INVALID.status: "This cannot be done as it was asked for"}
"""In the place of what the API calls it."""


def error_page(problem: Problem, request_id: str, *, is_signed_in: bool, again: str | None = None) -> Drawn:
    """Of any status. A problem names fields and remedies and quotes nothing. `again`: the same page, without
    what was asked of it."""
    kind = problem.kind
    content: list[Node] = [p(".lead")[sentence(problem.detail)]]
    remedies = [error.remedy for error in problem.errors if error.remedy not in problem.detail]
    if remedies:
        content.append(ul[[li[sentence(remedy)] for remedy in remedies]])
    content += [
        p[a(href=again)["Show the page without it"]] if again else None,
        p[a(href="/")["Go to the overview" if is_signed_in else "Sign in"]],
        p(".dim")["Status ", str(kind.status), ", request ", code[request_id]],
    ]
    return Drawn(TITLES.get(kind.status, kind.title.rstrip(".")), content, status=kind.status)
