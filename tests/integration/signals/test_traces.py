"""Spans: each of its process, linked by ids that need no storage; and nothing at all where nobody traces."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import tracing
from app.domain.task import idempotency_key
from app.errors import UserError
from app.signals.scrape import traced
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline
from tests.integration.web.conftest import StartReceiver, start_receiver
from tests.integration.web.receiving import delivery_body

__all__ = ["start_receiver"]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    with tracing.tracing("test", is_wanted=True, processor=SimpleSpanProcessor(exporter)):
        yield exporter


def ended(exporter: InMemorySpanExporter, name: str) -> list[Any]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def ids(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def linked(span: Any) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


async def test_a_report_is_linked_with_the_send_of_its_task(
    store: Store, clock: SteppedClock, spans: InMemorySpanExporter
) -> None:
    pipeline = Pipeline(store, clock)
    task_ids = await pipeline.start(2)
    await pipeline.submit()
    await pipeline.deliver(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids))
    sends, reports = ended(spans, "submit"), ended(spans, "settle")
    assert len(sends) == len(reports) == 2
    by_task = {span.attributes["tallyhook.task"]: span for span in sends}
    for span in reports:
        send = by_task[span.attributes["tallyhook.task"]]
        assert send.context.trace_id == UUID(send.attributes["tallyhook.task"]).int
        assert linked(span) == [ids(send)]
        assert span.context.trace_id == UUID(span.attributes["tallyhook.delivery"]).int
    assert {span.attributes["tallyhook.answer"] for span in sends} == {"accepted"}


async def test_a_delivery_has_a_trace_from_its_acceptance_on(
    start_receiver: StartReceiver, store: Store, spans: InMemorySpanExporter
) -> None:
    receiver = await start_receiver(store)
    await receiver.post(delivery_body())
    (accepted,), commits = ended(spans, "accept"), ended(spans, "commit")
    assert ids(accepted) == tracing.of_delivery(accepted.attributes["tallyhook.delivery"])
    assert accepted.attributes["tallyhook.stored"] is True
    assert ids(accepted) in [link for commit in commits for link in linked(commit)]


def test_lines_within_a_span_carry_its_ids(spans: InMemorySpanExporter) -> None:
    assert tracing.add_ids(None, "info", {}) == {}
    with tracing.span("sweep"):
        line = tracing.add_ids(None, "info", {"event": "swept"})
    (span,) = ended(spans, "sweep")
    assert (line["trace_id"], line["span_id"]) == (f"{ids(span)[0]:032x}", f"{ids(span)[1]:016x}")


def test_an_error_leaves_its_kind_and_not_its_text(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="a prompt"), tracing.span("sweep"):
        raise ValueError("a prompt")
    (span,) = ended(spans, "sweep")
    assert dict(span.attributes) == {"tallyhook.error": "ValueError"}
    assert not span.events
    assert not span.status.description


def test_a_second_send_is_in_the_trace_of_the_first(spans: InMemorySpanExporter) -> None:
    first = tracing.of_attempt("018f0000-0000-7000-8000-000000000001", 1)
    tracing.begin("submit", root=first).end()
    tracing.begin("submit", parent=first).end()
    one, two = ended(spans, "submit")
    assert ids(one) == first
    assert (two.context.trace_id, two.parent.span_id) == first
    assert ids(two) != first


def test_where_nobody_traces_there_are_no_spans() -> None:
    assert tracing.begin("submit") is tracing.NO_SPAN
    with tracing.span("sweep") as span:
        assert span is tracing.NO_SPAN
    assert tracing.add_ids(None, "info", {"event": "x"}) == {"event": "x"}


def test_without_the_packages_it_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(UserError) as caught, traced("web", is_wanted=True):
        pass
    assert "tallyhook[otel]" in caught.value.remedy
