"""docs/emulator.md lists, row by row, which test holds what; this keeps the list true."""

import re
from dataclasses import fields
from pathlib import Path

from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Switches

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[2] / "docs" / "emulator.md").read_text()


def test_names_in_the_document_exist_and_row_tests_are_listed() -> None:
    listed = set(re.findall(r"`(test_[a-z0-9_]+)`", DOCUMENT)) - {field.name for field in fields(Switches)}
    source = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    defined = set(re.findall(r"def (test_[a-z0-9_]+)", source))
    assert listed <= defined, sorted(listed - defined)
    rows = {name for name in defined if re.match(r"test_(?:b\d+|c|d\d|e\d|f|g\d|h|i\d|j2|k\d+)_", name)}
    assert rows <= listed, sorted(rows - listed)


def test_every_fault_and_switch_is_described() -> None:
    for field in fields(FaultRates):
        assert f"`{field.name}`" in DOCUMENT, field.name
    for field in fields(Switches):
        assert field.name == "leniency" or f"`{field.name}`" in DOCUMENT, field.name
