"""What is installed: exact, with hashes, under licences that are known; `make lint` runs bandit."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from deploy.licences import PAGE, WORDS, installed, licence_of, normal, permitted

ROOT = Path(__file__).parents[2]
LISTS = ["deploy/requirements.txt", "deploy/build-requirements.txt"]


def pinned(path: str) -> dict[str, str]:
    """Package -> version, of a file of exact versions."""
    return {
        normal(name): version
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("path", LISTS)
def test_every_file_of_a_list_has_a_hash(path: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / path).read_text().strip())
    assert len(entries) > 30
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry[:80]
        assert re.match(r"[\w.-]+==\S+( ; [^\\]+)? \\$", entry.splitlines()[0]), entry[:80]


@pytest.mark.parametrize("path", LISTS)
def test_lists_and_constraints_say_one_version(path: str) -> None:
    """`make hashes` makes both lists anew."""
    constraints, listed = pinned("constraints.txt"), pinned(path)
    assert {k: v for k, v in listed.items() if constraints.get(k, v) != v} == {}


def test_a_list_has_all_that_a_process_needs() -> None:
    """Whatever is installed here for what an image contains; `make hashes` adds what is new."""
    listed = pinned("deploy/requirements.txt")
    needed = {name: package.version for name, package in installed(extras=("objects", "mcp", "otel")).items()}
    assert {k: v for k, v in needed.items() if listed.get(k) != v} == {}
    assert "hatchling" in pinned("deploy/build-requirements.txt")


def test_every_licence_is_known_and_permitted() -> None:
    """`make licences` writes the table."""
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE))
    found = {name: licence_of(package) for name, package in installed().items()}
    assert len(found) > 40
    assert {k: v for k, v in found.items() if rows.get(k) != v} == {}
    assert [k for k, v in found.items() if not permitted(v)] == []


@pytest.mark.parametrize(
    ("expression", "is_permitted"),
    [("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-2.0-only", True), ("MIT AND GPL-2.0-only", False),
     ("Apache-2.0 AND MIT", True), ("(MIT AND 0BSD) OR Commercial", True)],
)  # fmt: skip
def test_choices_and_sums_of_licences(expression: str, is_permitted: bool) -> None:
    assert permitted(expression) == is_permitted


def test_a_licence_that_is_not_understood_is_said(tmp_path: Path) -> None:
    for said in (
        "",
        "License: Proprietary\n",
        "Classifier: License :: OSI Approved :: GNU General Public License\n",
    ):
        (tmp_path / "METADATA").write_text(f"Name: odd\nVersion: 1\n{said}")
        with pytest.raises(KeyError, match="odd says"):
            licence_of(metadata.PathDistribution(tmp_path))
    assert all(word == word.lower() for word in WORDS)


def test_lint_runs_bandit() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bandit"]
    held_by_ruff = {"B101", "B104", "B105", "B106", "B110", "B311", "B404", "B603", "B606", "B608", "B704"}
    assert set(settings["skips"]) <= held_by_ruff
    assert re.search(
        r"^lint:.*\n(\t.*\n)*\t\$\(BIN\)/bandit .*\bapp workers\b",
        (ROOT / "Makefile").read_text(),
        re.MULTILINE,
    )
