"""Links and pictures of each page lead to what the site has; `make docs` builds it strictly."""

import re
from pathlib import Path, PurePosixPath

import pytest

from deploy.pages_hook import PAGES, ROOT, as_site

SOURCES = [*PAGES, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
TARGET = re.compile(r"\]\((?!\w+:)([^)\s#]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("source", SOURCES)
def test_every_link_of_a_page_leads_to_a_page_or_picture_of_the_site(source: str) -> None:
    folder = PurePosixPath(PAGES.get(source) or source.removeprefix("docs/")).parent
    code = re.compile(r"^[ ]*```.*?^[ ]*```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
    for target in TARGET.findall(as_site(code.sub("", (ROOT / source).read_text()), source)):
        place = Path(ROOT / "docs" / folder / target).resolve()
        name = str(place.relative_to((ROOT / "docs").resolve()))
        assert place.is_file() or name in PAGES.values(), f"{source}: {target}"
