"""Every metric that any process shows: what docs, alerts and the dashboard are held against."""

from typing import Any

from app.api.signals import ApiSignals
from app.limits import Limits
from app.signals.process import ProcessSignals
from app.web.server import METRICS, create_app
from workers.signals import WorkerSignals

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def families() -> dict[str, tuple[str, str, str]]:
    """Name -> (kind, help text, which processes), of ours."""
    nobody: Any = None
    web = create_app(nobody, nobody, secrets=("x",), limits=Limits(), clock=lambda: 0)[METRICS].registry
    api, worker = ProcessSignals("api").registry, WorkerSignals().registry
    ApiSignals(api)
    found: dict[str, tuple[str, str, str]] = {}
    for process, registry in (("web", web), ("api", api), ("worker", worker)):
        for family in registry.collect():
            if family.name.startswith("tallyhook_"):
                known = found.get(family.name, ("", "", ""))[2]
                found[family.name] = (family.type, family.documentation, f"{known} {process}".strip())
    return found


def series() -> set[str]:
    """Names as PromQL asks for them."""
    return {f"{name}{suffix}" for name, (kind, _, _) in families().items() for suffix in SUFFIXES[kind]}
