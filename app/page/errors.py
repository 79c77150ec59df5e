"""What went wrong, as a page: what, why, what to do, and the id by which the log has it."""

from htpy import Node, a, code, li, p, ul

from app.api.problems import Problem
from app.page.parts.words import sentence
from app.page.visit import Drawn


def error_page(problem: Problem, request_id: str) -> Drawn:
    """Of any status. A problem names fields and remedies and quotes nothing."""
    kind = problem.kind
    content: list[Node] = [p(".lead")[sentence(problem.detail)]]
    remedies = [error.remedy for error in problem.errors if error.remedy not in problem.detail]
    if remedies:
        content.append(ul[[li[sentence(remedy)] for remedy in remedies]])
    content += [
        p[a(href="/")["Go to the overview"]],
        p(".dim")["Status ", str(kind.status), ", request ", code[request_id]],
    ]
    return Drawn(kind.title.rstrip("."), content, status=kind.status)
