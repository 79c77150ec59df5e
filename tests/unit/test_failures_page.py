"""docs/failures.md and docs/security.md name tests; each must exist, and the rows that every release needs
must be there."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "failures.md").read_text()
NEEDED = {*(f"S{n}" for n in range(1, 23)), *(f"R{n}" for n in (*range(1, 15), 24))}


@pytest.mark.parametrize("name", ["failures.md", "security.md"])
def test_every_named_test_exists(name: str) -> None:
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", (TOP / "docs" / name).read_text())
    assert len(found) > 20
    for path, names in found:
        source = (TOP / "tests" / path).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"def {name}\b", source), f"{path} has no {name}"


def test_every_needed_row_names_a_test() -> None:
    rows = dict(re.findall(r"^\| ([SRW]\d+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert {row for row in NEEDED if "`test_" not in rows.get(row, "")} == set()


def test_every_line_of_the_threat_model_names_a_test() -> None:
    page = (TOP / "docs" / "security.md").read_text()
    attempts = [
        line for line in page.splitlines() if line.count("|") == 4 and not line.startswith(("|---", "| who"))
    ]
    lines = [line for line in attempts if "where it is stopped" not in line]
    assert len(lines) > 20
    without = [line for line in lines if "`test_" not in line and line not in page.partition("## ")[0]]
    assert without == []
