"""Links to all of a table as a file."""

from collections.abc import Mapping

from htpy import Element, Node, a, p

from app.page.parts.table import address

FORMATS = (("csv", "CSV"), ("jsonl", "JSON Lines"), ("parquet", "Parquet"))


def all_of_it(name: str, **query: str) -> Element:
    """Of a table of the page, under it. `query`: whose rows, where not everybody's."""
    return p(".download")[
        "Download all: ", in_each_format(f"/downloads/{name}", name.replace("-", " "), query)
    ]


def in_each_format(path: str, what: str, query: Mapping[str, str] | None = None) -> Node:
    """A link for each format; `what` tells who hears them apart."""
    return [
        [
            " · " if n else None,
            a(href=address(f"{path}.{ending}", query or {}), download=True, aria_label=f"{what} as {name}")[
                name
            ],
        ]
        for n, (ending, name) in enumerate(FORMATS)
    ]
