"""Tables without lines. Where a terminal has no room for a row, it is a block, a line for each column:
no figure is cut or folded, and no column is left out."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

UNBROKEN = ("id", "task", "verdict", "created", "from", "to", "day")
"""Columns of tables whose texts stay on one line."""
WORDS_CHARS_MIN = 24
"""As narrow as a column of words may be folded. What has no blank in it, or is shorter, is never folded."""
GAP_CHARS = 2


class FittingTable(Table):
    """A table that becomes blocks where it does not fit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least_width(console) <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._blocks(console)

    def _least_width(self, console: Console) -> int:
        wide = [
            max(len(str(column.header)), *(_least(_text(console, cell)) for cell in column.cells), 0)
            for column in self.columns
        ]
        return sum(wide) + GAP_CHARS * (len(wide) - 1)

    def _blocks(self, console: Console) -> Iterator[RenderableType]:
        names = [str(column.header) for column in self.columns]
        room = max(map(len, names))
        for first, *others in zip(*(column.cells for column in self.columns), strict=True):
            yield Text.assemble((names[0], "dim"), " ", _text(console, first))
            for name, cell in zip(names[1:], others, strict=True):
                text = _text(console, cell)
                if text.plain.strip():
                    yield Text.assemble("  ", (f"{name:<{room}} ", "dim"), _indented(text, room + 3))


def _text(console: Console, cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))


def _least(text: Text) -> int:
    widths = (
        line.cell_len if " " not in line.plain else min(line.cell_len, WORDS_CHARS_MIN)
        for line in text.split("\n")
    )
    return max(widths, default=0)


def _indented(text: Text, by: int) -> Text:
    return Text("\n" + " " * by).join(text.split("\n"))


def table(*columns: str) -> Table:
    """A table without lines; ids, days and times are never broken."""
    empty = FittingTable(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        empty.add_column(column, no_wrap=column in UNBROKEN)
    return empty
