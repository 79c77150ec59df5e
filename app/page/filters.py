"""The filter bar above a list of tasks: words with values, in the address, such as
`state:failed engine:GEMINI custom_id:"a b"`, as a bulk change has them (domain.task_filter).

Any other word, and text without one, is an error that says what is known; nothing is ever passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from htpy import Element, Node, button, details, div, form, input, label, p, summary

from app.domain.task_filter import STATES, VERDICTS, WORDS, FilterError, TaskFilter, parse_filter
from app.page.parts.notice import notice

QUERY = "q"
"""What the address calls it."""
_VALUES: Mapping[str, tuple[str, ...]] = {"state": STATES, "verdict": VERDICTS}


@dataclass(frozen=True, slots=True)
class Filter:
    """What was asked for. With a `problem` nothing is shown of the list."""

    text: str
    wanted: TaskFilter = field(default_factory=TaskFilter)
    problem: str | None = None

    @property
    def is_empty(self) -> bool:
        """Everything is wanted."""
        return self.wanted == TaskFilter()


def read_filter(text: str) -> Filter:
    """What a filter says, or what is wrong with it."""
    try:
        return Filter(text, parse_filter(text))
    except FilterError as error:
        return Filter(text, problem=f"{error}: {error.remedy}.")


def filter_bar(path: str, asked: Filter) -> Element:
    """The bar above a list, with what is wrong in it, and the words that it knows."""
    wrong: Node = notice(p[asked.problem], tone="loud") if asked.problem else None
    hint = "; ".join(
        f"{word}: {' | '.join(_VALUES[word]) if word in _VALUES else what}"
        for word, (_, _, what) in WORDS.items()
    )
    return div[
        form(".filter", method="get", action=path, role="search")[
            label(".unseen", for_=QUERY)["Filter"],
            input(
                id=QUERY,
                type="search",
                name=QUERY,
                value=asked.text,
                placeholder=" ".join(f"{word}:" for word in WORDS),
                autocomplete="off",
                spellcheck="false",
                aria_describedby="filter-words",
                aria_invalid="true" if asked.problem else None,
            ),
            button(type="submit")["Filter"],
        ],
        details(".words")[summary["Words of a filter"], p("#filter-words.more")[hint]],
        wrong,
    ]
