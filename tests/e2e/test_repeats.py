"""Several samples of a prompt, there and back by the real command."""

import csv
import json
from pathlib import Path

from tests.e2e.test_cli import Cli, cli, here, restored_logging
from tests.e2e.test_cli_daily import fail_all

__all__ = ["cli", "here", "restored_logging"]

ROWS = """prompt,task_type,country,custom_id,repeats
Is it safe?,GEMINI,DE,a,
and,GEMINI,DE,b,1
or,GEMINI,DE,c,0
"""


def test_samples_are_bought_told_apart_and_asked_for_again(cli: Cli) -> None:
    Path("mine.csv").write_text(ROWS)
    for wrong in ("0", "-1", "1.5", "three", "1000000000"):
        assert cli(f"submit mine.csv --repeats {wrong}").code == 2, wrong
    submitted = cli("submit mine.csv --repeats 3 --name one --json").document
    assert (submitted["tasks"], submitted["bad_lines_count"]) == (4, 1)
    assert (submitted["bad_lines"][0]["line"], submitted["bad_lines"][0]["field"]) == (4, "repeats")
    assert submitted["repeats"] == {"records": 1, "tasks": 3}
    assert submitted["credits"]["estimate"] == 16

    rows = [json.loads(line) for line in cli("export one").out.splitlines()]
    samples = [(row["custom_id"], row["sample"], row["repeats"], row["samples_answered"]) for row in rows]
    assert samples == [("a", 1, 3, 0), ("a", 2, 3, 0), ("a", 3, 3, 0), ("b", None, None, None)]
    cli("export one --format csv --output out.csv")
    with Path("out.csv").open(newline="") as file:
        assert [row["sample"] for row in csv.DictReader(file)] == ["1", "2", "3", ""]

    fail_all(submitted["run"]["id"])
    report = cli("report one --json").document
    assert report["repeats"] == [{"repeats": 3, "answered": 0, "records": 1}]
    assert "0 of 3 answered: 1 record" in cli("report one").out
    cli("report one --html report.html")
    assert "0 of 3" in Path("report.html").read_text()
    cli("export one --remaining --output rest.csv --json")
    again = cli("submit rest.csv --repeats 9 --name two --json").document
    assert (again["tasks"], again["repeats"]) == (4, {"records": 1, "tasks": 3})
    assert cli("export two --remaining").out == cli("export one --remaining").out
    assert cli("schedule add mine.csv --every 1d --repeats 3 --json").code == 0
