"""Citations lead somewhere: `C-E.5` and `C-B16` to the provider's contract, `P1`, `A7`, `S8`, `R3`, `W14`,
`I4` to the failure catalogue, `F5` to the page of failures, a page to a file.

A letter and a number of that form in a comment, a docstring or prose is a citation; in code it is a value.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONTRACT = (DOCS / "provider-contract.md").read_text("utf-8")
CATALOGUE = (DOCS / "failure-catalogue.md").read_text("utf-8")
FAILURES = (DOCS / "failures.md").read_text("utf-8")

CONTRACT_PART = re.compile(r"(?<![\w-])C-([A-Z]\d*(?:\.\d+)?)(?!\w)")
ROW = re.compile(r"(?<![\w.+-])([ABFILPRSW]\d{1,2})(?!\w)")
SECTION = re.compile(r"(?<![\w.-])([A-M]\.\d{1,2})(?!\w)")
"""Of the contract, as pages cite it under a heading of its own."""
PAGE = re.compile(r"\bdocs/([\w-]+\.md)\b")
LINK = re.compile(r"\]\(([^)#:]+\.md)(?:#[\w-]*)?\)")
LINTER_CODES = re.compile(r"# noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*")
CODE_SPAN = re.compile(r"`[^`]*`")


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ ([A-M](?:\.\d+)?)\b", page, re.MULTILINE))


def rows(page: str, letters: str) -> set[str]:
    return set(re.findall(rf"^(?:\||-) ([{letters}]\d+) ", page, re.MULTILINE))


CONTRACT_ROWS = rows(CONTRACT, "BL")
CONTRACT_PARTS = headings(CONTRACT) | CONTRACT_ROWS
ROWS = CONTRACT_ROWS | rows(CATALOGUE, "PASRWI") | rows(FAILURES, "F")


def lead_nowhere(text: str, *, is_page: bool = False) -> list[str]:
    """The citations of a text that name no heading, row or page."""
    return [
        *(f"C-{part}" for part in CONTRACT_PART.findall(text) if part not in CONTRACT_PARTS),
        *(row for row in ROW.findall(text) if row not in ROWS),
        *(part for part in SECTION.findall(text) if is_page and part not in CONTRACT_PARTS),
        *(page for page in PAGE.findall(text) if not (DOCS / page).is_file()),
        *(word for word in re.findall(r"\bDESIGN\b", text)),
    ]


def prose_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Comments and docstrings, those of attributes too, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], LINTER_CODES.sub("", token.string)
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value


def faults_of_python(source: str) -> list[tuple[int, str]]:
    """Citations of a file's prose that lead nowhere, each with its line."""
    # Telling prose from code takes a hundred times longer than looking; of a thousand files a few need it.
    if not lead_nowhere(source.replace("\\n", "\n")):
        return []
    return [(line, citation) for line, text in prose_of_python(source) for citation in lead_nowhere(text)]


def prose_of_page(page: str) -> Iterator[tuple[int, str]]:
    """Lines outside blocks of code, without code spans that are no page's name."""
    in_code = False
    for number, line in enumerate(page.splitlines(), start=1):
        if line.startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield (
                number,
                CODE_SPAN.sub(lambda span: " ".join(found[0] for found in PAGE.finditer(span[0])), line),
            )


def python_files() -> list[Path]:
    return [
        path
        for top in ("app", "workers", "tests", "benchmarks")
        for path in sorted((ROOT / top).rglob("*.py"))
    ]


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")), *sorted((ROOT / "app").glob("*.md"))]


def test_citations_in_code_lead_somewhere() -> None:
    files = python_files()
    assert len(files) > 200, "the code was not found"
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {citation}"
        for path in files
        for line, citation in faults_of_python(path.read_text("utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1  # row L41\n", [(1, "L41")]),
        ('def f():\n    """One.\\nP22."""\n', [(2, "P22")]),
        ("x = 'F99'\n", []),
        ("x = 1  # noqa: S101, F99\n", []),
    ],
)
def test_a_citation_in_prose_of_code_is_found(source: str, found: list[tuple[int, str]]) -> None:
    assert faults_of_python(source) == found


def test_citations_and_links_in_pages_lead_somewhere() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {citation}"
        for path in pages()
        for line, text in prose_of_page(path.read_text("utf-8"))
        for citation in [
            *lead_nowhere(text, is_page=True),
            *(link for link in LINK.findall(text) if not (path.parent / link).is_file()),
        ]
    ]
    assert not faults, "\n".join(faults)


def definitions(source: str) -> set[str]:
    """Functions and classes at the top of a module, and methods as `Class.method`."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return names


def test_the_guide_to_the_code_names_what_is_there() -> None:
    guide = (ROOT / "app" / "README.md").read_text("utf-8")
    places = re.findall(r"^\|[^|]+\| `([\w/]+\.py)` \| ((?:`[\w.]+`(?:, )?)+) \|$", guide, re.MULTILINE)
    assert len(places) > 10, "the table was not found"
    missing = [
        (path, name)
        for path, names in places
        for name in re.findall(r"[\w.]+", names)
        if name not in definitions((ROOT / "app" / path).read_text("utf-8"))
    ]
    assert not missing


def test_the_files_that_pages_name_are_there() -> None:
    path = re.compile(r"`((?:app|workers|tests|benchmarks|examples|docs)/[\w/.-]*)`")
    named = {(page.name, name) for page in pages() for name in path.findall(page.read_text("utf-8"))}
    assert len(named) > 30, "the files were not found"
    assert not [(page, name) for page, name in named if not (ROOT / name).exists()]


def test_the_pages_have_their_rows() -> None:
    counts = {letter: sum(row.startswith(letter) for row in ROWS) for letter in "BLPASRWI"}
    assert counts == {"B": 52, "L": 40, "P": 21, "A": 34, "S": 22, "R": 25, "W": 22, "I": 9}


@pytest.mark.parametrize(
    "text",
    [
        "an hour at most (C-D.9)",
        "C-N",
        "C-B53",
        "the oldest (P22)",
        "S23 to S25",
        "row L41",
        "(DESIGN section 4)",
        "see docs/design.md",
        "F99",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(text: str) -> None:
    assert lead_nowhere(text)


@pytest.mark.parametrize(
    "text",
    [
        "(C-I.3)",
        "C-B16",
        "C-L7, L38",
        "R12 to R16",
        "HMAC-SHA-256",
        "ISO-8601",
        "the SHA256 of it",
        "UTF-8",
        "version 1.2",
        "docs/books.md",
        "F5",
    ],
)
def test_what_leads_somewhere_or_is_no_citation_passes(text: str) -> None:
    assert not lead_nowhere(text, is_page=True)
