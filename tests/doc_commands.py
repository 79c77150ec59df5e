"""The commands that pages tell to type, and what shows each.

A block of `console`, `bash` or `sh` is run by tests/deploy/test_commands.py, line by line, unless a comment
before it says otherwise: `<!-- tested: PATH -->` names the test that does it, `<!-- not run: REASON -->` says
why none does.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELLS = ("console", "bash", "sh", "shell", "zsh")
BLOCK = re.compile(
    r"^(?:[ ]*<!-- (?P<how>tested|not run): (?P<what>[^\n]+?) -->\n)?[ ]*```(?P<language>\w*)[^\n]*\n"
    r"(?P<text>.*?)^[ ]*```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Commands:
    """One block of a page."""

    page: str
    line: int
    how: str
    """tested, not run, or "" for what is run line by line."""
    what: str
    lines: tuple[str, ...]
    """Without the prompt; a command of several lines is one."""


def pages() -> list[Path]:
    further = [ROOT / "examples" / "README.md", ROOT / "app" / "README.md"]
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *further]


def blocks_of(text: str, page: str) -> list[Commands]:
    """Of one page, in their order."""
    return [
        Commands(
            page,
            text.count("\n", 0, found.start("text")),
            found["how"] or "",
            found["what"] or "",
            _typed(found["text"], found["language"]),
        )
        for found in BLOCK.finditer(text)
        if found["language"] in SHELLS or (not found["language"] and found["text"].startswith("$ "))
    ]


def all_blocks() -> list[Commands]:
    return [block for path in pages() for block in blocks_of(path.read_text(), str(path.relative_to(ROOT)))]


def _typed(text: str, language: str) -> tuple[str, ...]:
    """What somebody types: of a console what stands behind a prompt, with lines that a quote goes on over."""
    if language != "console" and not text.startswith("$ "):
        return tuple(line for line in text.splitlines() if line.strip())
    typed: list[str] = []
    is_open = False
    for line in text.splitlines():
        if is_open:
            typed[-1] += f"\n{line}"
        elif line.startswith(("$ ", "# ")):
            typed.append(line[2:])
        else:
            continue
        is_open = re.sub(r"\s#.*", "", typed[-1]).count("'") % 2 == 1
    return tuple(typed)
