"""Bulk changes as JSON documents, and in a sentence."""

from app.domain.bulk_change import BulkChange, ChangeState, Figures, Verb
from app.domain.credits import to_json_number
from app.domain.text import agreeing, counted
from app.domain.time_format import iso_utc
from app.views.runs import Document


def bulk_change_document(change: BulkChange) -> Document:
    """What it does, and how far it has come."""
    return {
        "id": change.id,
        "verb": str(change.verb),
        "filter": change.filter,
        "even_if_held": change.even_if_held,
        "account": change.account,
        "actor": change.actor,
        "state": str(change.state),
        "proposed": _figures(change.proposed),
        "done": _figures(change.done),
        "created_at": iso_utc(change.created_at_ms),
        "lapses_at": iso_utc(change.lapses_at_ms if change.state is ChangeState.PROPOSED else None),
        "confirmed_at": iso_utc(change.confirmed_at_ms),
        "finished_at": iso_utc(change.finished_at_ms),
        "reason": change.reason,
    }


def what_it_does(change: BulkChange, figures: Figures, *, is_done: bool) -> str:
    """Such as `3 tasks would be sent again, and may cost 15 credits by our estimate`."""
    n = figures.matched
    what = counted(n, "run" if change.verb.is_of_runs else "task")
    verb = agreeing(n, "is", "are") if is_done else "would be"
    credits = counted(to_json_number(figures.credits), "credit")
    return {
        Verb.RETRY: f"{what} {verb} sent again, and may cost {credits} by our estimate",
        Verb.CANCEL: f"{what} {verb} cancelled, and {credits} by our estimate not spent",
        Verb.PAUSE: f"{what} {verb} paused",
        Verb.RESUME: f"{what} {agreeing(n, 'goes', 'go') if is_done else 'would go'} on",
    }[change.verb]


def what_is_left(change: BulkChange, figures: Figures) -> list[str]:
    """What is left alone, and why."""
    held, answered = figures.left_held, figures.left_answered
    credits = counted(to_json_number(figures.held), "credit")
    why = f"the old attempt may still be charged; {credits} held"
    if change.verb is Verb.CANCEL:
        why = f"the provider has {agreeing(held, 'it', 'them')}, or may have; {credits} held"
    lines = [f"{counted(held, 'task')} {agreeing(held)} left alone: {why}"] if held else []
    late = f"{counted(answered, 'task')} {agreeing(answered)} left alone: an answer came late"
    return lines + ([late] if answered else [])


def _figures(figures: Figures) -> Document:
    return {
        "matched": figures.matched,
        "credits": to_json_number(figures.credits),
        "left_held": figures.left_held,
        "left_answered": figures.left_answered,
        "held": to_json_number(figures.held),
    }
