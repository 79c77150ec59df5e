"""A person's own columns, there and back by the real command."""

import csv
import json
from pathlib import Path

from tests.e2e.test_cli import Cli, cli, here, restored_logging
from tests.e2e.test_cli_daily import fail_all

__all__ = ["cli", "here", "restored_logging"]

ROWS = [
    ["prompt", "task_type", "country", "custom_id", "brand_id", "state of play", "credits"],
    ["Is Monzo safe?", "GEMINI", "GB", "a1", "007", 'say "hi"\nto Ann', "-5"],
    ["Is N26 safe?", "GEMINI", "DE", "a2", "", "", "12345678901234567890"],
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_own_columns_come_back_and_the_rest_is_a_file_again(cli: Cli) -> None:
    with Path("mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*ROWS, ["again", "GEMINI", "DE", "a1", "", "", ""]])
    refused = cli("submit mine.csv --name refused --strict --json").document["error"]
    assert "line 5" in json.dumps(refused) and "line 2" in json.dumps(refused), "the quoted row is two lines"
    submitted = cli("submit mine.csv --name one --json").document
    assert submitted["own_columns"] == ROWS[0][4:]
    assert (submitted["tasks"], submitted["bad_lines_count"]) == (2, 1)

    cli("export one --format csv --output out.csv")
    found = rows_of(Path("out.csv"))
    assert [[row[name] for name in ROWS[0]] for row in found] == ROWS[1:]
    lines = [json.loads(line) for line in cli("export one").out.splitlines()]
    assert [(line["custom_id"], line["metadata"]["credits"]) for line in lines] == [
        ("a1", "-5"),
        ("a2", "12345678901234567890"),
    ]

    fail_all(submitted["run"]["id"])
    rest = cli("export one --remaining --output rest.csv --json").document
    assert (rest["rows"], rest["open"]) == (2, 0)
    assert [[row[name] for name in ROWS[0]] for row in rows_of(Path("rest.csv"))] == ROWS[1:]
    again = cli("submit rest.csv --name two --json").document
    assert (again["tasks"], again["bad_lines_count"]) == (2, 0)
    assert cli("export two --remaining").out == cli("export one --remaining").out


def test_what_remaining_cannot_do_is_asked_for_wrongly(cli: Cli) -> None:
    cli("submit good.csv --name one --json")
    for options in ("--format parquet", "--what ledger", "--follow d", "--format jsonl -o x.csv", "-o x.tsv"):
        assert cli(f"export one --remaining {options}").code == 2, options


def test_a_misspelt_column_is_asked_about(cli: Cli) -> None:
    Path("typo.csv").write_text("prompt,task_type,contry,brand\nx,GEMINI,DE,b\n")
    refused = cli("submit typo.csv")
    assert refused.code != 0
    assert "did you mean country?" in refused.err and "metadata.contry" in refused.err
