"""What is wrong with the records of a file, each thing once however many records have it. Pure."""

import dataclasses
import re
from dataclasses import dataclass

REMARKS_KEPT = 100
"""Different ones; the rest is counted."""
LINES_NAMED = 5


_NAME = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}")


def shown(name: str) -> str:
    """A name that was given, where it can be one: else it may be a prompt."""
    return name if _NAME.fullmatch(name) else "(not a name)"


def unquoted(problem: str, remedy: str) -> str:
    """What is wrong and what to write instead, to be said by the API. Without a problem that has something in
    quotes: that is its sender's own, and may be a prompt."""
    quotes = "'" in problem or '"' in problem
    return "; ".join(part for part in ("" if quotes else problem, remedy) if part)


@dataclass(slots=True)
class Remark:
    """One thing that is wrong, in the words of the first record that has it."""

    line: int
    field: str
    problem: str
    remedy: str
    lines: list[int] = dataclasses.field(default_factory=list)
    """The first lines on which it is, LINES_NAMED at most."""
    count: int = 0

    @property
    def where(self) -> str:
        """The lines and the field, as a sentence begins."""
        named = ", ".join(f"{line:,}" for line in self.lines)
        more = f" and {self.count - len(self.lines):,} more" if self.count > len(self.lines) else ""
        lines = f"line{'s' if self.count > 1 else ''} {named}{more}"
        return f"{lines}, {self.field}" if self.field not in ("", "line") else lines


@dataclass(slots=True)
class Remarks:
    """The different remarks on a file, in the order of their first lines."""

    kept: list[Remark] = dataclasses.field(default_factory=list)
    others: int = 0
    """Remarks beyond REMARKS_KEPT, each time counted."""
    _by_words: dict[tuple[str, str, str], Remark] = dataclasses.field(default_factory=dict)

    def add(self, line: int, field: str, problem: str, remedy: str) -> None:
        """Count one more; keep it if it is another one than those before."""
        words = (field, _without_figures(problem), _without_figures(remedy))
        remark = self._by_words.get(words)
        if remark is None:
            if len(self.kept) >= REMARKS_KEPT:
                self.others += 1
                return
            remark = self._by_words[words] = Remark(line, field, problem, remedy)
            self.kept.append(remark)
        remark.count += 1
        if len(remark.lines) < LINES_NAMED:
            remark.lines.append(line)


def _without_figures(text: str) -> str:
    """What two remarks must share to be the same one: 10,001 characters are too many as 12,000 are. What
    stands in quotes is the file's own."""
    return re.sub(r"('[^']*')|\b(?:0x[0-9a-f]+|\d[\d,]*)", lambda match: match[1] or "#", text)
