"""Tables on terminals of every width: all that is in them can be read."""

import io

import pytest
from rich.console import Console

from app.cli.tables import table

MOVED = (
    "2026-11-27 16:46",
    "2026-11-27 18:46",
    "1234567.125",
    "1233567.125",
    "900 to 1100",
    "[red]-100[/red]",
)
LONG = "a reason of many words that somebody wrote down after a long talk with the provider"


def drawn(width: int, *rows: tuple[str, ...], columns: tuple[str, ...]) -> list[str]:
    rows_drawn = table(*columns)
    for row in rows:
        rows_drawn.add_row(*row)
    output = io.StringIO()
    Console(file=output, width=width, soft_wrap=True, highlight=False).print(rows_drawn)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_figure_and_no_time_is_cut_or_folded(width: int) -> None:
    columns = ("from", "to", "before", "after", "ours", "unexplained")
    lines = drawn(width, MOVED, MOVED, columns=columns)
    text = "\n".join(lines)
    for cell in (*MOVED[:-1], "-100"):
        assert text.count(cell) >= 2, cell
    assert max(map(len, lines)) <= width
    assert all(name in text for name in columns)
    assert (len(lines) == 3) == (width >= 120)


def test_words_are_folded_before_a_row_becomes_a_block() -> None:
    lines = drawn(60, ("2026-11-27", LONG, "-100"), columns=("day", "what", "credits"))
    assert lines[0].split() == ["day", "what", "credits"]
    assert 2 < len(lines) < 6
    assert max(map(len, lines)) <= 60


def test_a_block_leaves_out_what_is_empty_and_takes_no_name_for_markup() -> None:
    lines = drawn(20, ("x" * 30, "", "1"), ("y", "2", r"\[b]"), columns=("name", "failed", "open"))
    assert lines == ["name " + "x" * 30, "  open   1", "name y", "  failed 2", "  open   [b]"]
