"""The alerts of deploy/prometheus: each parses, asks for metrics that exist, has its heading in the runbook.

`make test-alerts` lets each of them fire by metrics of real processes.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app.cli.main import app
from app.web.metrics import Metrics
from tests.promql import metrics_in
from tests.signals import series
from workers.signals import WorkerSignals

TOP = Path(__file__).parents[2]
RUNBOOK = (TOP / "docs" / "runbook.md").read_text()
OF_PROMETHEUS = {"up"}


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((TOP / "deploy" / "prometheus" / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_metrics_that_exist(alert: dict[str, Any]) -> None:
    asked = metrics_in(alert["expr"])
    assert asked
    assert asked - series() - OF_PROMETHEUS == set()


def test_what_alerts_see_grow_is_shown_before_it_does() -> None:
    """A series that begins at 30 has not grown, so the first burst would be missed."""
    web, worker = Metrics(), WorkerSignals()
    worker.of_account("default")
    shown = {
        (sample.name, value)
        for registry in (web.registry, worker.registry)
        for family in registry.collect()
        for sample in family.samples
        for value in sample.labels.values()
    }
    reasons = ("mismatch", "stale", "unknown_account", "missing_headers")
    kinds = ("read", "write", "append", "long")
    assert {("tallyhook_deliveries_refused_total", reason) for reason in reasons} <= shown
    assert {("tallyhook_database_failures_total", kind) for kind in kinds} <= shown
    assert ("tallyhook_provider_requests_total", "429") in shown


def test_a_metric_that_is_none_is_found() -> None:
    assert metrics_in('sum(rate(a_total{x="y"}[5m])) > 1 unless on () max(abs(b)) / c') == {
        "a_total",
        "b",
        "c",
    }


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_means_and_where_to_read_on(alert: dict[str, Any]) -> None:
    name, annotations = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert annotations["summary"]
    assert annotations["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    for part in ("- **Means:** ", "- **Look:** ", "- **Do:** "):
        assert part in section, part


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()], "in the order of the file"


def test_the_runbook_names_metrics_that_exist() -> None:
    named = set(re.findall(r"\b(tallyhook_\w+)", RUNBOOK))
    assert named - series() == set()


def test_the_runbook_names_commands_that_exist() -> None:
    named = set(re.findall(r"`tallyhook ([a-z]+)", RUNBOOK))
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert len(named) > 10
    assert named - known == set()
