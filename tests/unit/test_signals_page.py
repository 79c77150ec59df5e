"""docs/signals.md lists every metric, and none that is not there."""

import re
from pathlib import Path

from tests.signals import families

PAGE = Path(__file__).parents[2] / "docs" / "signals.md"


def test_the_page_lists_every_metric_with_what_it_says() -> None:
    listed = {
        name: (kind, who, text)
        for name, kind, who, text in re.findall(
            r"^\| `(tallyhook_\w+)` \| (\w+) \| ([\w, ]+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE
        )
    }
    assert listed == {
        f"{name}_total" if kind == "counter" else name: (
            kind,
            "all" if who == "web api worker" else who.replace(" ", ", "),
            text,
        )
        for name, (kind, text, who) in families().items()
    }
