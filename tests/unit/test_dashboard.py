"""The dashboard of deploy/grafana: every metric is on it, and it asks for none that is not there."""

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.grafana.dashboard import FILE, text
from tests.promql import metrics_in
from tests.signals import SUFFIXES, families, series


def expressions() -> Iterator[str]:
    for panel in json.loads(Path(FILE).read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m")


def test_the_file_is_what_its_script_writes() -> None:
    assert FILE.read_text() == text(), "make dashboard"


def test_it_asks_for_metrics_that_exist() -> None:
    asked = set().union(*(metrics_in(each) for each in expressions()))
    assert asked - series() == set()


def test_every_metric_is_on_it() -> None:
    asked = set().union(*(metrics_in(each) for each in expressions()))
    unseen = {
        name
        for name, (kind, _, _) in families().items()
        if not any(f"{name}{suffix}" in asked for suffix in SUFFIXES[kind])
    }
    assert unseen == set()


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(FILE.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in json.loads(FILE.read_text())["panels"]}) > 40
