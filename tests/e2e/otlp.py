"""A collector of OpenTelemetry's protocol: keeps the spans that processes send it."""

import contextlib
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Ids = tuple[bytes, bytes]


@dataclass
class Collector:
    """What came: messages of the protocol."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp unpacks what says that it is packed
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in of_process.scope_spans:
                self.spans += scope.spans
        return web.Response(body=b"", content_type="application/x-protobuf")

    def ids(self, name: str) -> set[Ids]:
        """(trace, span) of each span of a name."""
        return {(span.trace_id, span.span_id) for span in self.spans if span.name == name}

    def links(self, name: str) -> set[Ids]:
        """What spans of a name are linked with."""
        return {
            (link.trace_id, link.span_id) for span in self.spans if span.name == name for link in span.links
        }


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of the loopback."""
    collector = Collector()
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/traces", collector.take)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        collector.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        yield collector
    finally:
        await runner.cleanup()
