"""Which licences what we install has, from what the packages say of themselves: `make licences` writes the
table of docs/licences.md, and a test holds it to that."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
EXTRAS = ("parquet", "objects", "mcp", "otel")
"""Of a user's; what only developers install is not handed on."""
PERMITTED = frozenset(
    {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0", "BSD", "MPL-2.0", "0BSD"}
)
"""All allow any use in programs of any licence, as long as notices stay; MPL-2.0 asks for changes to its own
files."""
WORDS = {
    "apache 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "mit": "MIT", "mit license": "MIT", "isc license": "ISC", "bsd license": "BSD",
    "3-clause bsd license": "BSD-3-Clause",
    "python software foundation license": "PSF-2.0",
}  # fmt: skip
"""How packages without a licence expression say it, as they say it, in small letters."""


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(package: metadata.Distribution) -> str:
    """A licence expression (SPDX); BSD where the package does not say which. Raises KeyError for one that is
    not understood."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return expression
    words = [
        line.rpartition("::")[2].strip()
        for line in said.get_all("Classifier") or []
        if line.startswith("License")
    ]
    text = (said.get("License") or "").strip()
    if text and "\n" not in text and len(text) < 40:
        words.insert(0, text)
    for word in words:
        known = WORDS.get(word.lower(), word)
        if known in PERMITTED:
            return known
    raise KeyError(f"{said['Name']} says {words or 'nothing'} of its licence")


def installed(name: str = "tallyhook", extras: tuple[str, ...] = EXTRAS) -> dict[str, metadata.Distribution]:
    """The packages that a package needs, itself left out, as far as they are installed here."""
    found: dict[str, metadata.Distribution] = {}
    for needed in _needs(name, extras):
        _collect(needed, found)
    return dict(sorted(found.items()))


def _collect(needed: Requirement, found: dict[str, metadata.Distribution]) -> None:
    if (key := normal(needed.name)) in found:
        return
    try:
        found[key] = metadata.distribution(needed.name)
    except metadata.PackageNotFoundError:  # not for this platform or version
        return
    for further in _needs(needed.name, tuple(needed.extras)):
        _collect(further, found)


def _needs(name: str, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for line in metadata.requires(name) or []:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield needed


def permitted(expression: str) -> bool:
    """Whether all parts of it are, or one of those between which it leaves the choice."""
    return any(set(choice.strip("() ").split(" AND ")) <= PERMITTED for choice in expression.split(" OR "))


def table() -> str:
    """The rows of the page."""
    return "".join(f"| {name} | {licence_of(package)} |\n" for name, package in installed().items())


def main() -> None:
    """Write the table into the page."""
    before = PAGE.read_text().partition("|---|---|\n")
    PAGE.write_text(before[0] + before[1] + table())


if __name__ == "__main__":
    main()
