"""What the site needs beside docs/: pages at the top of the repository; words in place of links to code."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "reporting.md"}
"""At the top of the repository -> on the site."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
"""Pictures, which begin with !, too."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = as_site((ROOT / source).read_text(), source)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Of a page of docs/."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return as_site(markdown, f"docs/{page.file.src_uri}")


def as_site(text: str, source: str) -> str:
    """A page of the repository with links as the site has them: to pages, or of anything else the words."""
    folder = PurePosixPath(source).parent
    here = PurePosixPath(PAGES.get(source) or source.removeprefix("docs/"))

    def changed(link: re.Match[str]) -> str:
        mark, words, target, anchor = link[1], link[2], link[3], link[4] or ""
        if ":" in target:
            return link[0]
        path = _normal(folder / target)
        if path in PAGES:
            return f"[{words}]({_relative(PAGES[path], here)}{anchor})"
        if path.startswith("docs/") and (ROOT / path).is_file():
            return f"{mark}[{words}]({_relative(path.removeprefix('docs/'), here)}{anchor})"
        return words if (ROOT / path).exists() else link[0]

    return LINK.sub(changed, text)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(page: str, here: PurePosixPath) -> str:
    return "../" * (len(here.parts) - 1) + page
