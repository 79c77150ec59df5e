"""Who gets the answer of a task whose caller is gone."""

from app.services.listeners import KEPT_MS, Listeners
from tests.clock import SteppedClock

ASKER = ("token", "question")


def test_an_answer_that_nobody_heard_is_for_the_next_who_asks_and_for_one_only() -> None:
    clock = SteppedClock()
    listeners, gone = Listeners(clock), False
    listener = listeners.add(ASKER, "task-1", lambda: gone)
    assert listeners.take_up(ASKER) is None, "somebody waits for it"
    gone = True
    assert listeners.take_up(("other token", "question")) is None
    assert listeners.take_up(ASKER) == "task-1"
    assert listeners.take_up(ASKER) is None
    # The one who was too late to notice keeps nothing for anybody.
    listeners.end(ASKER, listener, is_heard=False)
    assert listeners.take_up(ASKER) is None


def test_what_was_heard_is_not_kept_and_what_was_not_for_a_while() -> None:
    clock = SteppedClock()
    listeners = Listeners(clock)
    heard = listeners.add(ASKER, "task-1", lambda: False)
    listeners.end(ASKER, heard, is_heard=True)
    assert listeners.take_up(ASKER) is None
    left = listeners.add(ASKER, "task-2", lambda: False)
    listeners.end(ASKER, left, is_heard=False)
    clock.advance(KEPT_MS)
    assert listeners.take_up(ASKER) is None
