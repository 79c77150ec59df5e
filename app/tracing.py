"""Spans of OpenTelemetry's, where TALLYHOOK_TRACES is on; else nothing.

A trace's id is the id of what it is about: of the attempts of a task its id, of a delivery its. So whoever
knows the task knows the trace of its sends, in every process and as long as the task stands; no column has to
keep it.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext, Tracer

Attribute = str | int | float | bool | None
Ids = tuple[int, int]
"""Of a trace, and of a span in it."""
FLUSH_MS = 5_000
"""At the end of a process, for spans that are not sent yet."""

_tracer: "Tracer | None" = None
_wanted: ContextVar[Ids | None] = ContextVar("wanted", default=None)
"""What the span that is begun just now is to be called."""


class TracingUnavailable(Exception):  # noqa: N818 - a package that is not there
    """The extra is not installed; the text says what to do."""


class Span:
    """What is done for some time. Without a span of OpenTelemetry's, because nobody traces: nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        """Attributes that are known by now; None is left out."""
        if self._span is not None:
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(f"tallyhook.{name}", value)

    def end(self, **attributes: Attribute) -> None:
        """It is over."""
        if self._span is not None:
            self.set(**attributes)
            self._span.end()


NO_SPAN = Span()
_NOTHING = contextlib.nullcontext(NO_SPAN)


def is_on() -> bool:
    """Whether spans are made."""
    return _tracer is not None


def begin(
    name: str,
    *,
    root: Ids | None = None,
    parent: Ids | None = None,
    links: Iterable[Ids] = (),
    **attributes: Attribute,
) -> Span:
    """A span that somebody ends later. `root`: it begins the trace of these ids; `parent`: it belongs to a
    span elsewhere. Without either it belongs to the span around it."""
    if _tracer is None:
        return NO_SPAN
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context

    around = None
    if root is not None:
        around = Context()
    elif parent is not None:
        around = set_span_in_context(NonRecordingSpan(_context(parent)), Context())
    token = _wanted.set(root)
    try:
        begun = Span(_tracer.start_span(name, context=around, links=[Link(_context(ids)) for ids in links]))
    finally:
        _wanted.reset(token)
    begun.set(**attributes)
    return begun


def span(
    name: str, *, links: Iterable[Ids] = (), **attributes: Attribute
) -> "contextlib.AbstractContextManager[Span]":
    """A span for what is done within it, whose ids its log lines carry."""
    if _tracer is None:
        return _NOTHING
    begun = begin(name, links=links)
    begun.set(**attributes)
    return _current(begun)


@contextlib.contextmanager
def _current(begun: Span) -> Iterator[Span]:
    from opentelemetry.trace import use_span

    # No exception is recorded: its text may quote a prompt.
    with use_span(begun._span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield begun
        except BaseException as error:
            begun.set(error=type(error).__name__)
            raise


def of_attempt(task_id: str, attempt: int) -> Ids:
    """Of the span in which an attempt is sent first."""
    return UUID(task_id).int, _span_id(f"{task_id}.{attempt}")


def of_delivery(delivery_id: str) -> Ids:
    """Of the span in which a delivery is accepted."""
    return UUID(delivery_id).int, _span_id(delivery_id)


def _span_id(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) or 1


def _context(ids: Ids) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def add_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: `trace_id` and `span_id` of the span that a line is written in."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        context = get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
    return event


@contextlib.contextmanager
def tracing(process: str, *, is_wanted: bool, processor: "SpanProcessor | None" = None) -> Iterator[None]:
    """Meanwhile spans are made, and given to `processor`; None: sent by a thread to where
    OTEL_EXPORTER_OTLP_ENDPOINT says. Raises TracingUnavailable without the extra."""
    global _tracer  # noqa: PLW0603 - as the logs, one for a process
    if not is_wanted:
        yield
        return
    provider = _provider(process, processor)
    _tracer = provider.get_tracer("tallyhook")
    try:
        yield
    finally:
        _tracer = None
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


def _provider(process: str, processor: "SpanProcessor | None") -> Any:
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor = BatchSpanProcessor(OTLPSpanExporter())
    except ImportError:
        raise TracingUnavailable("TALLYHOOK_TRACES needs packages that are not installed") from None

    class WantedIds(RandomIdGenerator):
        """Those that the span is to have, else random ones."""

        def generate_trace_id(self) -> int:
            wanted = _wanted.get()
            return super().generate_trace_id() if wanted is None else wanted[0]

        def generate_span_id(self) -> int:
            wanted = _wanted.get()
            return super().generate_span_id() if wanted is None else wanted[1]

    name = os.environ.get("OTEL_SERVICE_NAME") or f"tallyhook-{process}"
    provider = TracerProvider(resource=Resource.create({"service.name": name}), id_generator=WantedIds())
    provider.add_span_processor(processor)
    return provider
