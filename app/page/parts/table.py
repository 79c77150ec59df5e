"""Tables with their pager. On a narrow screen each row is a block, its cells named by their columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from htpy import Element, Node, a, caption, div, nav, span, tbody, td, th, thead, tr
from htpy import table as table_element
from markupsafe import Markup

from app.page.parts.drawn import drawn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: its title, and what it shows of a row. The first one of a table names the row."""

    title: str
    cell: Callable[[T], Node]
    is_figure: bool = False


def table(
    title: str,
    columns: Sequence[Column[T]],
    rows: Sequence[T],
    *,
    empty: Node,
    is_title_seen: bool = False,
    is_compact: bool = False,
) -> Element:
    """`title` says what the table is to who hears it, and is seen where it has no heading of its own. Without
    rows `empty` stands in its place. `is_compact`: there are many rows, so on a narrow screen each is two or
    three lines, of which figures alone say what they are."""
    if not rows:
        return div[empty]
    shells = [(td(class_=_class(column), data_label=column.title), column.cell) for column in columns[1:]]
    return div(".table")[
        table_element(".stacked.compact" if is_compact else ".stacked")[
            caption(class_=None if is_title_seen else "unseen")[title],
            thead[tr[[th(scope="col", class_=_class(column))[column.title] for column in columns]]],
            tbody[[_row(columns[0].cell, shells, row) for row in rows]],
        ]
    ]


def _row(name: Callable[[T], Node], shells: Sequence[tuple[Element, Callable[[T], Node]]], row: T) -> Markup:
    return drawn(tr[th(scope="row")[name(row)], *(shell[div[cell(row)]] for shell, cell in shells)])


def _class(column: Column[T]) -> str | None:
    return "figure" if column.is_figure else None


def pager(path: str, query: Mapping[str, str], next_cursor: str | None, name: str = "cursor") -> Node:
    """Links to the first page and to the one behind this, where there are any. `query`: what the address
    says now, its cursor too, which is called `name`."""
    kept = {known: value for known, value in query.items() if known != name}
    links = []
    if query.get(name):
        links.append(a(href=address(path, kept))["First page"])
    if next_cursor is not None:
        links.append(a(href=address(path, kept | {name: next_cursor}), rel="next")["Next page"])
    return nav(".pager", aria_label="Pages of this list")[links or span(".dim")["All of them."]]


def address(path: str, query: Mapping[str, str]) -> str:
    """A path with what is given of a query."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
