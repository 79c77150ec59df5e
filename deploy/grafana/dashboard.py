"""Writes deploy/grafana/tallyhook.json, the dashboard, from the list below: `make dashboard`.

Every metric is somewhere on it, and it asks for none that is not there (tests/unit/test_dashboard.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("tallyhook.json")
WIDTH, HEIGHT, COLUMNS = 8, 7, 24
RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: its title, the unit of Grafana's that its values have, and (expression, legend) each."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    text: str = ""


def rate_of(counter: str, *by: str) -> tuple[str, str]:
    """A counter a second, by some labels."""
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({counter}{RATE}))", " ".join(f"{{{{{label}}}}}" for label in by) or "all"


def quantiles_of(histogram: str, *by: str) -> tuple[tuple[str, str], ...]:
    """The median and the 99th percentile."""
    grouped, legend = ", ".join((*by, "le")), " ".join(f"{{{{{label}}}}}" for label in by)
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({grouped}) (rate({histogram}_bucket{RATE})))",
            f"{legend} p{round(q * 100)}".strip(),
        )
        for q in (0.5, 0.99)
    )


def state_of(gauge: str, *by: str, legend: str = "") -> tuple[str, str]:
    """A gauge of the state, which one worker shows."""
    grouped = f" by ({', '.join(by)})" if by else ""
    shown = " ".join(f"{{{{{label}}}}}" for label in by)
    return f"max{grouped} ({gauge})", legend or shown or gauge.removeprefix("tallyhook_")


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is all well",
        (
            Panel(
                "Ages",
                "s",
                (
                    state_of("tallyhook_inbox_oldest_seconds", legend="oldest delivery not settled"),
                    state_of("tallyhook_poll_overdue_seconds", legend="poll overdue"),
                    state_of("tallyhook_last_delivery_seconds", legend="since the last delivery"),
                    state_of("tallyhook_relay_oldest_seconds", legend="oldest result to push"),
                    ("time() - max(tallyhook_state_read_timestamp_seconds)", "since the state was read"),
                ),
                "What waits, and for how long. Depths say little: a queue of a million that moves is well.",
            ),
            Panel(
                "Oldest task by account",
                "s",
                (
                    state_of(
                        "tallyhook_unreported_oldest_seconds", "account", legend="{{account}} no report"
                    ),
                    state_of("tallyhook_pending_oldest_seconds", "account", legend="{{account}} to be sent"),
                ),
            ),
            Panel(
                "Of the provider's retention",
                "percentunit",
                (state_of("tallyhook_unreported_retention_ratio", "account"),),
                "At 100 % the provider deletes the oldest task without a report.",
            ),
            Panel("Tasks of open runs", "short", (state_of("tallyhook_tasks", "account", "state"),)),
            Panel("Runs that are not over", "short", (state_of("tallyhook_runs", "account", "state"),)),
            Panel(
                "Processes and leases",
                "short",
                (
                    ("count by (process) (tallyhook_process_info)", "{{process}} scraped"),
                    state_of("tallyhook_processes", "kind", legend="{{kind}} by the database"),
                    state_of("tallyhook_lease_held", "lease", legend="lease {{lease}}"),
                ),
            ),
        ),
    ),
    (
        "Credits",
        (
            Panel(
                "Balance and what is held",
                "short",
                (
                    state_of("tallyhook_balance_credits", "account", legend="{{account}} balance"),
                    state_of("tallyhook_held_credits", "account", legend="{{account}} held"),
                    state_of("tallyhook_unknown_credits", "account", legend="{{account}} unknown"),
                ),
            ),
            Panel(
                "Until credits and runs end",
                "s",
                (
                    state_of("tallyhook_credits_end_seconds", "account", "estimate"),
                    state_of("tallyhook_runs_end_seconds", "account", legend="{{account}} runs"),
                ),
            ),
            Panel(
                "Burn, drift, age of the balance",
                "short",
                (
                    state_of("tallyhook_burn_credits_per_hour", "account", legend="{{account}} an hour"),
                    state_of("tallyhook_drift_credits", "account", legend="{{account}} drift"),
                    state_of("tallyhook_balance_age_seconds", "account", legend="{{account}} age (s)"),
                ),
            ),
        ),
    ),
    (
        "Sending",
        (
            Panel("Sends by answer", "reqps", (rate_of("tallyhook_sends_total", "account", "answer"),)),
            Panel(
                "Requests to the provider",
                "reqps",
                (rate_of("tallyhook_provider_requests_total", "account", "method", "status"),),
            ),
            Panel("Their duration", "s", quantiles_of("tallyhook_provider_request_seconds", "account")),
            Panel("Wait for a permit", "s", quantiles_of("tallyhook_permit_wait_seconds", "account")),
            Panel("Slots at the provider", "short", (state_of("tallyhook_slots", "account", "state"),)),
            Panel("Polls", "ops", (rate_of("tallyhook_polls_total", "outcome"),)),
        ),
    ),
    (
        "Receiving",
        (
            Panel("Deliveries by answer", "reqps", (rate_of("tallyhook_deliveries_total", "answer"),)),
            Panel(
                "Refused",
                "reqps",
                (
                    rate_of("tallyhook_deliveries_refused_total", "reason"),
                    (f"sum (rate(tallyhook_deliveries_old_secret_total{RATE}))", "old secret, taken"),
                ),
            ),
            Panel("Commits", "s", quantiles_of("tallyhook_inbox_commit_seconds")),
            Panel("Deliveries of a commit", "short", quantiles_of("tallyhook_inbox_commit_deliveries")),
            Panel(
                "Waiting to be committed",
                "short",
                (("sum by (instance) (tallyhook_inbox_waiting)", "{{instance}}"),),
            ),
            Panel(
                "Bytes waiting, bytes unverified",
                "bytes",
                (
                    ("sum by (instance) (tallyhook_inbox_waiting_bytes)", "{{instance}} waiting"),
                    ("sum by (instance) (tallyhook_unverified_bytes)", "{{instance}} unverified"),
                ),
            ),
            Panel(
                "Trouble",
                "ops",
                (
                    (f"sum (rate(tallyhook_inbox_commit_failures_total{RATE}))", "commits failed"),
                    (f"sum (rate(tallyhook_wake_failures_total{RATE}))", "wakes not taken"),
                    (f"sum (rate(tallyhook_wakes_dropped_total{RATE}))", "wakes given up"),
                    (f"sum (rate(tallyhook_deliveries_repeated_total{RATE}))", "delivered again"),
                    (f"sum (rate(tallyhook_deliveries_lost_total{RATE}))", "lost after their 2xx"),
                    ("sum (tallyhook_connections_cut)", "connections cut, in all"),
                ),
            ),
        ),
    ),
    (
        "Settling",
        (
            Panel("Settled by verdict", "ops", (rate_of("tallyhook_settled_total", "verdict"),)),
            Panel(
                "Not settled",
                "ops",
                (
                    rate_of("tallyhook_unsettled_total", "why"),
                    state_of("tallyhook_deliveries_set_aside", legend="wait for a person, in all"),
                ),
            ),
            Panel("Jobs that went wrong", "ops", (rate_of("tallyhook_jobs_total", "job", "outcome"),)),
        ),
    ),
    (
        "Pushing results",
        (
            Panel("Posts by status", "reqps", (rate_of("tallyhook_relay_posts_total", "status"),)),
            Panel("Their duration", "s", quantiles_of("tallyhook_relay_post_seconds")),
            Panel("Endpoints", "short", (state_of("tallyhook_relay_endpoints", "state"),)),
        ),
    ),
    (
        "The API",
        (
            Panel(
                "Requests", "reqps", (rate_of("tallyhook_api_requests_total", "method", "route", "status"),)
            ),
            Panel("Their duration", "s", quantiles_of("tallyhook_api_request_seconds", "route")),
        ),
    ),
    (
        "Duties of workers",
        (
            Panel("Duration of a turn", "s", quantiles_of("tallyhook_duty_seconds", "duty")),
            Panel("What turns dealt with", "ops", (rate_of("tallyhook_duty_rows_total", "duty"),)),
            Panel(
                "Failed turns, and time since the last one",
                "short",
                (
                    (f"sum by (duty) (increase(tallyhook_duty_failures_total{RATE}))", "{{duty}} failed"),
                    (
                        "time() - max by (duty) (tallyhook_duty_last_turn_timestamp_seconds)",
                        "{{duty}} since (s)",
                    ),
                ),
            ),
            Panel(
                "Partitions ahead, archive's lag",
                "short",
                (
                    state_of("tallyhook_partition_days_ahead", legend="days ahead"),
                    ("max(tallyhook_archive_lag_seconds) / 86400", "days of the archive's lag"),
                ),
            ),
        ),
    ),
    (
        "Processes",
        (
            Panel(
                "Database transactions", "s", quantiles_of("tallyhook_database_seconds", "instance", "kind")
            ),
            Panel("Redis", "s", quantiles_of("tallyhook_redis_seconds", "instance")),
            Panel(
                "Failures",
                "ops",
                (
                    (
                        f"sum by (instance, kind) (rate(tallyhook_database_failures_total{RATE}))",
                        "{{instance}} {{kind}}",
                    ),
                    (f"sum by (instance) (rate(tallyhook_redis_failures_total{RATE}))", "{{instance}} Redis"),
                ),
            ),
            Panel(
                "Connections of pools",
                "short",
                (
                    (
                        "sum by (instance, pool, state) (tallyhook_pool_connections)",
                        "{{instance}} {{pool}} {{state}}",
                    ),
                ),
            ),
            Panel("Event loop, how late", "s", quantiles_of("tallyhook_loop_lag_seconds", "instance")),
            Panel(
                "Clocks",
                "s",
                (
                    ("tallyhook_clock_offset_seconds", "{{instance}} against the provider"),
                    ("tallyhook_database_clock_offset_seconds", "{{instance}} against the database"),
                ),
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The document that Grafana imports."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        for number, panel in enumerate(row):
            x = number * WIDTH % COLUMNS
            y += HEIGHT if number and not x else 0
            panels.append(_drawn(panel, len(panels) + 1, x, y))
        y += HEIGHT
    return {
        "uid": "tallyhook",
        "title": "Tallyhook",
        "tags": ["tallyhook"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
            ]
        },
        "panels": panels,
    }


def _drawn(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
