"""Requests that are generated from an OpenAPI document, good and bad, and what is checked of each answer."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest


def probe_all(
    document_url: str,
    examples: int,
    probe: Callable[[Any, list[Any]], None],
    checks: Sequence[str],
    *,
    but: Collection[tuple[str, str]] = (),
) -> None:
    """`probe(case, checks)` for so many cases of each operation and kind, the same ones each time. `but`:
    operations that are left out, as (method, path)."""
    # Imported here: each test process collects every test, and this takes a second of it.
    schemathesis = pytest.importorskip("schemathesis", reason="install the dev dependencies")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    chosen = CHECKS.get_by_names(checks)
    for operation in schemathesis.openapi.from_url(document_url).get_all_operations():
        made = operation.ok()
        if (made.method.upper(), made.path) in but:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=made.as_strategy(generation_mode=mode))
            def each(case: Any) -> None:
                probe(case, chosen)

            each()
