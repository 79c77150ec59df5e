"""States and verdicts: a word with a shape and a colour, so that who sees no colours tells them apart."""

import functools

from htpy import span
from markupsafe import Markup

from app.page.parts.drawn import drawn

KEPT = 256
"""Words, as they were drawn: there are few, and a page has two in each of its rows."""

_PATHS = {
    "done": '<path d="M2.5 8.5l3.5 3.5 7.5-8" fill="none" stroke="currentColor" stroke-width="2.5"/>',
    "going": '<path d="M4 2.5l9 5.5-9 5.5z" fill="currentColor"/>',
    "waiting": '<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="2.5"/>',
    "paused": '<path d="M4 2.5h3v11h-3zM9.5 2.5h3v11h-3z" fill="currentColor"/>',
    "wrong": '<path d="M8 1l7 7-7 7-7-7z" fill="currentColor"/>',
    "over": '<path d="M3 3l10 10M13 3l-10 10" stroke="currentColor" stroke-width="2.5"/>',
    "doubt": '<path d="M8 1.5l7 12.5h-14z" fill="none" stroke="currentColor" stroke-width="2"/>',
}
_TONES = {
    "done": "good",
    "going": "going",
    "waiting": "dim",
    "paused": "warn",
    "wrong": "loud",
    "over": "dim",
    "doubt": "warn",
}
_SHAPES = {
    "loading": "waiting",
    "pending": "waiting",
    "submitting": "going",
    "submitted": "going",
    "running": "going",
    "paused": "paused",
    "stopped": "wrong",
    "finished": "done",
    "completed": "done",
    "failed": "wrong",
    "rejected": "wrong",
    "expired": "doubt",
    "cancelled": "over",
    "matched": "done",
    "free_failure": "done",
    "explained": "done",
    "overcharged": "wrong",
    "undercharged": "wrong",
    "charged_failure": "wrong",
    "conflict": "wrong",
    "repriced": "wrong",
    "double_charged": "wrong",
    "unmatched": "wrong",
    "lost_after_ack": "wrong",
    "unknown": "doubt",
    "held": "waiting",
    "posted": "done",
    "voided": "over",
    "none": "waiting",
    "valid": "done",
    "revoked": "over",
    "ok": "done",
    "proposed": "waiting",
    "resting": "paused",
    "active": "going",
    "enabled": "going",
    "closed": "over",
    "held_up": "paused",
    "new": "waiting",
    "disabled": "over",
    "due": "waiting",
    "set_aside": "wrong",
}


@functools.lru_cache(KEPT)
def badge(word: str, *, tone: str | None = None) -> Markup:
    """A state or a verdict. A word that is new here is shown with the shape of doubt; `tone`: one of done,
    going, waiting, paused, wrong, over, doubt."""
    tone = tone or _SHAPES.get(word, "doubt")
    return drawn(span(class_=f"badge {_TONES[tone]}")[shape(tone), word.replace("_", " ")])


@functools.lru_cache(KEPT)
def shape(tone: str) -> Markup:
    """The shape alone, beside a text that says the same."""
    # Nothing in it but what stands above.
    return Markup(  # noqa: S704
        '<svg class="shape" viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">'
        f"{_PATHS[tone]}</svg>"
    )
