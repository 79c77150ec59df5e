"""What is measured of the state of the whole: one gauge each, with its help text and labels. Pure.

Ages rather than depths: a queue of a million that moves is well, a queue of one that is an hour old is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge's value at some time."""

    name: str
    """A key of STATE_GAUGES."""
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateGauge:
    """What a gauge says."""

    text: str
    labels: tuple[str, ...] = ()


STATE_GAUGES: Mapping[str, StateGauge] = {
    # Read every few seconds by the worker that holds the lease `state`.
    "state_read_timestamp_seconds": StateGauge("When the state was last read, by the database's clock"),
    "inbox_oldest_seconds": StateGauge("Age of the oldest delivery that is not settled; 0: there is none"),
    "deliveries_set_aside": StateGauge("Deliveries that could not be settled and wait for a person"),
    "last_delivery_seconds": StateGauge(
        "Since the provider delivered last; at least, where only polls came since"
    ),
    "poll_overdue_seconds": StateGauge(
        "How long the task has been due that is to be asked for first; 0: none is"
    ),
    "pending_oldest_seconds": StateGauge(
        "Age of the oldest running run of which a task may be sent; 0: none waits", ("account",)
    ),
    "unreported_oldest_seconds": StateGauge(
        "Since the oldest task was sent for which no report came; 0: there is none", ("account",)
    ),
    "unreported_retention_ratio": StateGauge(
        "That age as a part of the time that the provider keeps a task for; at 1 it deletes it", ("account",)
    ),
    "runs": StateGauge("Runs that are not over, by state", ("account", "state")),
    "tasks": StateGauge("Tasks of runs that are not over, by state", ("account", "state")),
    "balance_credits": StateGauge("Credits left, as the provider reported last", ("account",)),
    "balance_age_seconds": StateGauge("Since the balance was reported", ("account",)),
    "held_credits": StateGauge("Credits held for what is at the provider", ("account",)),
    "unknown_credits": StateGauge(
        "Credits held for what is over though no charge was reported, of the newest runs", ("account",)
    ),
    "processes": StateGauge("Processes that said lately that they run, by kind", ("kind",)),
    "lease_held": StateGauge("Whether somebody holds a lease", ("lease",)),
    "relay_oldest_seconds": StateGauge("Age of the oldest result that is to be pushed; 0: there is none"),
    "relay_endpoints": StateGauge("Endpoints by state", ("state",)),
    "partition_days_ahead": StateGauge(
        "Days after today that have their partition of deliveries; -1: today has none, or DEFAULT holds rows"
    ),
    "archive_lag_seconds": StateGauge(
        "How long the oldest day has been due that is not archived; 0: none is"
    ),
    # Read by the worker that looks for notices, as often as the forecast is made.
    "burn_credits_per_hour": StateGauge("Credits charged lately, for each hour of work", ("account",)),
    "credits_end_seconds": StateGauge(
        "Until no credits are left; none: not before a reset, as far as can be seen", ("account", "estimate")
    ),
    "runs_end_seconds": StateGauge("Until the last running run ends, as likely", ("account",)),
    "slots": StateGauge("Tasks that the provider works on at once: used, max", ("account", "state")),
    # Read by the worker that audits, whenever it does.
    "drift_credits": StateGauge("Credits that nobody can explain, at the last audit", ("account",)),
}
"""Without their prefix `tallyhook_`. A gauge without a value is not known, or is of no meaning here."""
