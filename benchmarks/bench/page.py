"""Writes what was measured: latest.json, the table of docs/performance.md between its markers, and its plot.

May not measure or judge; a row comes with its verdict.
"""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from benchmarks.bench.plot import plot
from benchmarks.bench.rig import ROOT

LATEST = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- table: written by make bench -->", "<!-- end of the table -->"
Document = dict[str, Any]


def keep(rows: Sequence[Document]) -> None:
    """Put rows in the place of those of the same benchmark and store, and write everything anew."""
    known = {_name(row): row for row in json.loads(LATEST.read_text())} if LATEST.exists() else {}
    merged = list((known | {_name(row): row for row in rows}).values())
    LATEST.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), merged))
    PLOT.write_text(plot(merged))


def with_table(page: str, rows: Iterable[Document], mark: str = BEGIN) -> str:
    """The page with the table after `mark` replaced. Raises ValueError when a marker is missing."""
    before, begin, rest = page.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/performance.md lacks {mark} or {END}: put both back around the table")
    return f"{before}{mark}\n{table(rows)}\n{END}{after}"


def table(rows: Iterable[Document]) -> str:
    """One line for each benchmark and store."""
    lines = [
        "| benchmark | store | ours | reference | ratio (lowest … highest) | bar | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["spread"]
        sign = "≥" if row["bar_kind"] == "min" else "≤"
        bar = "" if row["bar"] is None else f"{sign} {row['bar']:g}"
        verdict = {True: "holds", False: "**short**", None: ""}[row["holds"]]
        lines.append(
            f"| {row['benchmark']} | {row['store']} | {shown(row['value'])} {row['unit']} |"
            f" {shown(row['reference'])}: {escape(row['reference_is'], quote=False)} |"
            f" {row['ratio']:.3g} ({low:.3g} … {high:.3g}) | {bar} | {verdict} |"
        )
    return "\n".join(lines)


def shown(value: float) -> str:
    """Three figures, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _name(row: Document) -> tuple[str, str]:
    return row["benchmark"], row["store"]
