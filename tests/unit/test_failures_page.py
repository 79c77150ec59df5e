"""docs/failures.md names tests; each must exist, and the rows that every release needs must be there."""

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "failures.md").read_text()
NEEDED = {*(f"S{n}" for n in range(1, 23)), *(f"R{n}" for n in (*range(1, 15), 24))}


def test_every_named_test_exists() -> None:
    for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", PAGE):
        source = (TOP / "tests" / path).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"def {name}\b", source), f"{path} has no {name}"


def test_every_needed_row_names_a_test() -> None:
    rows = dict(re.findall(r"^\| ([SRW]\d+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert {row for row in NEEDED if "`test_" not in rows.get(row, "")} == set()
