"""The three editions of the contract as rows of data (C-B). Code reads a field, never an edition's
name."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """Everything that differs on the wire; the number under a field is its row in C-B."""

    name: str
    prices: str
    """B34-B39: name of the price list."""
    run_endpoint: bool
    """B2, B50: the oldest paths, /v1/run and /v1/task."""
    concurrency_header: str
    """B3: first part of the three header names."""
    concurrency_code: str
    """B4."""
    concurrency_message: str
    """B4."""
    success_in_limit_errors: bool
    """B5, B10: `success: false` also in 429 bodies."""
    string_errors: bool
    """B6: `error` is a plain string, details at top level."""
    requests_per_s: int
    """B7."""
    rate_per_endpoint: bool
    """B7: one bucket per endpoint and key, or one for all paths of a key."""
    requests_per_h: int
    """B8; 0 means no hourly limit."""
    credit_headers_on_429: bool
    """B11."""
    request_id_header: bool
    """B13: X-Request-ID and X-Latency-Ms."""
    test_keys: bool
    """B14: whether sk_test_ keys are known at all."""
    charged_in_status_early: int | None
    """B17: creditsCharged of an unfinished task in a status answer."""
    invalid_task_status: int
    """B19."""
    extra_monitor_statuses: tuple[int, ...]
    """B20: declared beyond those of the newest document."""
    insufficient_code: str
    """B21."""
    insufficient_message: str
    """B21."""
    credits_endpoint: bool
    """B22."""
    clear_queue: bool
    """B23."""
    priority_breakdown: bool
    """B24."""
    latency_in_task: bool
    """B25."""
    webhook_in_task: bool
    """B26."""
    priority_in_task: bool
    """B27."""
    goto: bool
    """B28: resolver and redirectLink."""
    default_country: str | None
    """B29."""
    html: Literal["inline", "storage", "cdn"]
    """B30."""
    html_lifetime_h: int
    """B30."""
    snake_case_aimode: bool
    """B31."""
    query_objects: bool
    """B32."""
    chatgpt_model: bool
    """B33: filled; otherwise null in 98 % of the answers."""
    shopping_always: bool
    """B34."""
    state: bool
    """B39."""
    overage_kinds: frozenset[str]
    """B41: plan kinds that may go below zero."""
    provisioning_days: float
    """B42: wait for an enterprise upgrade's slots."""
    top_up: bool
    """B43."""
    retention_from_creation: bool
    """B44."""
    bill_canceled: bool
    """B45."""
    batch: bool
    """B46."""
    batch_item_message: str
    """B47: {index} is filled in."""
    batch_item_errors: bool
    """B47: details.errors[] instead of details {field, message}."""
    queue_limit_counts: bool
    """B48: the four counters instead of {limit}."""
    pages_max: int
    """B49."""
    aioverview_model: bool
    """B51: a value of ?model= for /v1/countries."""
    grok: bool
    """K.4: whether Grok answers at all."""


_2025 = Edition(
    name="2025",
    prices="2025",
    run_endpoint=False,
    concurrency_header="X-Concurrent",
    concurrency_code="CONCURRENT_LIMIT_EXCEEDED",
    concurrency_message="Concurrent limit exceeded",
    success_in_limit_errors=False,
    string_errors=False,
    requests_per_s=500,
    rate_per_endpoint=False,
    requests_per_h=0,
    credit_headers_on_429=True,
    request_id_header=False,
    test_keys=True,
    charged_in_status_early=0,
    invalid_task_status=422,
    extra_monitor_statuses=(404, 409, 502),
    insufficient_code="INSUFFICIENT_PERMISSIONS",
    insufficient_message="Insufficient permissions or credits",
    credits_endpoint=False,
    clear_queue=False,
    priority_breakdown=False,
    latency_in_task=False,
    webhook_in_task=False,
    priority_in_task=True,
    goto=False,
    default_country="US",
    html="storage",
    html_lifetime_h=48,
    snake_case_aimode=True,
    query_objects=True,
    chatgpt_model=True,
    shopping_always=True,
    state=False,
    overage_kinds=frozenset({"contract", "self_serve"}),
    provisioning_days=2.0,
    top_up=True,
    retention_from_creation=False,
    bill_canceled=True,
    batch=True,
    batch_item_message="Task validation failed",
    batch_item_errors=False,
    queue_limit_counts=True,
    pages_max=10,
    aioverview_model=False,
    grok=True,
)

_LEGACY = replace(
    _2025,
    name="legacy",
    prices="legacy",
    run_endpoint=True,
    success_in_limit_errors=True,
    string_errors=True,
    requests_per_s=0,
    requests_per_h=1000,
    priority_in_task=False,
    html="inline",
    batch=False,
    pages_max=20,
)

_2026 = Edition(
    name="2026",
    prices="2026",
    run_endpoint=False,
    concurrency_header="X-Concurrency",
    concurrency_code="CONCURRENCY_LIMIT_EXCEEDED",
    concurrency_message="Concurrency limit exceeded",
    success_in_limit_errors=True,
    string_errors=False,
    requests_per_s=1000,
    rate_per_endpoint=True,
    requests_per_h=0,
    credit_headers_on_429=False,
    request_id_header=True,
    test_keys=False,
    charged_in_status_early=None,
    invalid_task_status=400,
    extra_monitor_statuses=(),
    insufficient_code="INSUFFICIENT_CREDITS",
    insufficient_message="Insufficient credits",
    credits_endpoint=True,
    clear_queue=True,
    priority_breakdown=True,
    latency_in_task=True,
    webhook_in_task=True,
    priority_in_task=True,
    goto=True,
    default_country=None,
    html="cdn",
    html_lifetime_h=24,
    snake_case_aimode=False,
    query_objects=False,
    chatgpt_model=False,
    shopping_always=False,
    state=True,
    overage_kinds=frozenset({"contract"}),
    provisioning_days=2.0,
    top_up=False,
    retention_from_creation=True,
    bill_canceled=False,
    batch=True,
    batch_item_message="Invalid task at index {index}",
    batch_item_errors=True,
    queue_limit_counts=False,
    pages_max=10,
    aioverview_model=True,
    grok=False,
)

EDITIONS = {edition.name: edition for edition in (_2025, _LEGACY, _2026)}


def at_todays_prices(edition: Edition) -> Edition:
    """An edition's wire with the newest price list, and with what that list sells: prices are dated data and
    change without an edition. The default where no edition is named."""
    return replace(edition, prices=_2026.prices, state=_2026.state)
