"""A bulk change: one thing done to all tasks, or all runs, that match a filter. What is tried out first, what
may be confirmed, and how much of it may be done. Pure.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from app.domain.task import OPEN_STATES, RETRYABLE_STATES, TaskState
from app.domain.task_filter import FilterError, TaskFilter, parse_filter, words_of


class Verb(StrEnum):
    """What is done."""

    RETRY = "retry"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"

    @property
    def is_of_runs(self) -> bool:
        """It is done to whole runs, of which a task matches; the others are done to the tasks themselves."""
        return self in (Verb.PAUSE, Verb.RESUME)


class ChangeState(StrEnum):
    """Where a bulk change stands."""

    PROPOSED = "proposed"  # tried out: nothing is changed until it is confirmed
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"  # by a person; what was done stays


STATES_OF = {Verb.RETRY: RETRYABLE_STATES, Verb.CANCEL: OPEN_STATES}
"""Tasks that a verb looks at."""
PROPOSED_FOR_MS = 3_600_000
"""A proposal that nobody confirms is forgotten after so long: what matches is another matter by then."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of what a bulk change would do, or did."""

    matched: int = 0
    """Tasks that are sent again or cancelled; runs that are paused or resumed."""
    credits: Decimal = Decimal(0)
    """What sending them again may cost; what is not spent on those that are cancelled."""
    left_held: int = 0
    """Left alone. Retry: the old attempt may still be charged; cancel: it is with the provider, or may be."""
    left_answered: int = 0
    """Left alone by a retry: the report came late, but it came, and it was a success."""
    held: Decimal = Decimal(0)
    """Credits held for those that are left alone; they stay held."""

    def plus(self, other: "Figures") -> "Figures":
        """Both together."""
        return Figures(
            self.matched + other.matched,
            self.credits + other.credits,
            self.left_held + other.left_held,
            self.left_answered + other.left_answered,
            self.held + other.held,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """How far a bulk change has come, in the order of runs and of their tasks."""

    run_id: str | None = None
    """None: at the beginning."""
    ordinal: int | None = None
    """All tasks up to this one are looked at; None: all of the run."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is done, and to what."""

    verb: Verb
    wanted: TaskFilter
    """Its run by id."""
    even_if_held: bool = False
    """A retry also where the old attempt may still be charged."""
    account: str | None = None
    """Of this one's runs only."""
    before_id: str | None = None
    """Of runs that were made before this id was."""


@dataclass(frozen=True, slots=True)
class BulkChange:
    """A bulk change as its row says."""

    id: str
    created_at_ms: int
    verb: Verb
    filter: str
    """As app.domain.task_filter writes it; its run by id."""
    even_if_held: bool
    account: str | None
    """Of this one's runs only."""
    actor: str
    token_id: str | None
    state: ChangeState
    proposed: Figures
    done: Figures
    place: Place
    confirmed_at_ms: int | None
    finished_at_ms: int | None
    reason: str | None
    """Why it ended before all that matches was changed."""

    @property
    def aim(self) -> Aim:
        """What it does; runs that are made later are none of its."""
        return Aim(self.verb, parse_filter(self.filter), self.even_if_held, self.account, self.id)

    @property
    def lapses_at_ms(self) -> int:
        """From when on a proposal cannot be confirmed any more."""
        return self.created_at_ms + PROPOSED_FOR_MS


MORE_MATCH = "more match now than were confirmed: so many were changed, and no more"
COSTS_MORE = "the rest would cost more than was confirmed, and was left alone"
BY_HAND = "stopped by hand"


def refuse_unfit(verb: Verb, wanted: TaskFilter) -> None:
    """Raises FilterError for a filter that a verb can do nothing with."""
    words = words_of(wanted)
    if wanted.text is not None and wanted.run is None:
        raise FilterError("text", "text: looks through the tasks of one run", "add run: with its name or id")
    if verb.is_of_runs and (unfit := [w for w in words if w in ("country", "custom_id", "text")]):
        what = f"{unfit[0]}: says nothing of whole runs, and {verb} is done to runs"
        raise FilterError(unfit[0], what, "use run:, state:, engine: and verdict:")
    states = STATES_OF.get(verb)
    if wanted.state is not None and states is not None and TaskState(wanted.state) not in states:
        done = {Verb.RETRY: "sent again", Verb.CANCEL: "cancelled"}[verb]
        what = f"no task that is {wanted.state} can be {done}"
        raise FilterError("state", what, f"use one of {', '.join(sorted(states))}, or leave it out")
