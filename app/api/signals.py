"""What the API counts of its requests, on the registry of its process."""

import functools

from prometheus_client import CollectorRegistry, Counter, Histogram

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiSignals:
    """Requests by route. Labels are of the table of routes, never what a stranger sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "tallyhook_api_requests",
            "Requests of the API that have ended; without a route: to no address of it",
            ["method", "route", "status"],
            registry=registry,
        )
        seconds = Histogram(
            "tallyhook_api_request_seconds",
            "Duration of requests; without streams, which last as long as somebody reads them",
            ["method", "route"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._requests = functools.cache(requests.labels)
        self._seconds = functools.cache(seconds.labels)

    def note(self, method: str, route: str, status: int, took_s: float | None) -> None:
        """One request has ended; `took_s` is None for a stream."""
        self._requests(method, route, status).inc()
        if took_s is not None:
            self._seconds(method, route).observe(took_s)
