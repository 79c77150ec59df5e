"""The import directions of docs/architecture.md, and nothing of one machine in the files.

domain ◀ ports ◀ services ◀ entry points        domain ◀ provider, store, queue, promptfile (adapters)
"""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "app.domain": set(),
    "app.address": set(),
    "app.settings_text": set(),
    "app.config": {"app.address", "app.settings_text"},
    "app.ports": {"app.domain"},
    "app.services": {"app.domain", "app.ports", "app.prompts", "app.store"},
    "app.provider": {"app.address", "app.domain", "app.ports"},
    "app.store": {"app.address", "app.domain", "app.ports"},
    "app.redis_pool": {"app.address"},
    "app.queue": {"app.redis_pool", "app.domain", "app.ports"},
    "app.prompts.reader": {"app.domain", "app.prompts.record", "app.prompts.rows"},
    "app.prompts.record": {"app.domain"},
    "app.prompts.rows": {"app.domain", "app.prompts.record"},
    # An independent witness: it knows nothing of ours.
    "app.emulator": set(),
}
"""What the inner parts may import of our own code, besides themselves. A part that is not listed is an entry
point or a piece of one: it may import all but what `ONLY_IMPORTED_BY` keeps from it."""

ONLY_IMPORTED_BY: dict[str, set[str]] = {
    "workers": {"workers"},
    "app.cli": {"app.cli"},
    # What is drawn is drawn by a command line: ours, and the emulator's own.
    "typer": {"app.cli", "app.emulator"},
    "rich": {"app.cli", "app.emulator"},
    "app.emulator": {"app.emulator", "app.cli.main", "app.cli"},
    # The queue is thin and replaceable.
    "arq": {"app.queue", "workers.arq_settings", "workers.jobs"},
}
"""Who may import a thing, among `app` and `workers`; tests and benchmarks may import everything."""


@dataclass(frozen=True)
class Import:
    """One imported name and where it is imported."""

    module: str
    line: int
    name: str


def is_part(name: str, part: str) -> bool:
    """Whether a dotted name is a part or lies below it."""
    return name == part or name.startswith(f"{part}.")


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module: plain, from, relative, late, under TYPE_CHECKING, or by import_module."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(module, node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            text = node.args[0] if node.args else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield Import(module, node.lineno, text.value)


def faults_of(found: Import) -> Iterator[str]:
    """The rules that one import breaks."""
    for part, allowed in MAY_IMPORT.items():
        ours = is_part(found.name, "app") or is_part(found.name, "workers")
        if not is_part(found.module, part) or not ours or is_part(found.name, part):
            continue
        if not any(is_part(found.name, other) for other in allowed):
            yield f"{found.module}:{found.line} imports {found.name}; {part} may import {sorted(allowed)}"
    for thing, importers in ONLY_IMPORTED_BY.items():
        if is_part(found.name, thing) and not any(is_part(found.module, part) for part in importers):
            yield f"{found.module}:{found.line} imports {found.name}; only {sorted(importers)} may"


def our_imports() -> Iterator[Import]:
    for top in ("app", "workers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            yield from imports_of(module, path.read_text("utf-8"), is_package=is_package)


def test_imports_go_one_way() -> None:
    found = list(our_imports())
    assert len(found) > 100, "the code was not found"
    faults = [fault for one in found for fault in faults_of(one)]
    assert not faults, "\n".join(faults)


def test_every_part_with_a_rule_exists() -> None:
    for part in MAY_IMPORT:
        path = ROOT.joinpath(*part.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), part


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.domain.task", "from app.store import Store"),
        ("app.domain.task", "from ..ports import Clock"),
        ("app.domain.task", "import app.config"),
        ("app.ports", "from app.services.submit import SubmitLimits"),
        ("app.ports", "from app import store"),
        ("app.services.submit", "from app.config import Settings"),
        ("app.services.submit", "from app.bootstrap import open_store"),
        ("app.services.submit", "from app.provider.client import Client"),
        ("app.provider.client", "from app.store import Store"),
        ("app.provider.client", "from app.services.submit import submit"),
        ("app.store.store", "from app.provider.wire import read_report"),
        ("app.store.store", "from app.services.settle import settle"),
        ("app.store.store", "def late():\n    from app.queue import Queue"),
        ("app.store.store", "if TYPE_CHECKING:\n    from app.web.server import serve"),
        ("app.queue", "from app.store import Store"),
        ("app.queue", "from app.bootstrap import Settings"),
        ("app.prompts.reader", "from app.services.load import load"),
        ("app.config", "from app.domain.task import TaskState"),
        ("app.emulator.engine.emulator", "from app.domain.pricing import estimate"),
        ("app.emulator.engine.emulator", "from ...provider import signature"),
        ("app.emulator.engine.emulator", "import workers.jobs"),
        ("app.web.server", "from workers.jobs import settle"),
        ("app.web.server", "import workers"),
        ("app.web.server", "from app.emulator.http.server import serve"),
        ("app.bootstrap", "import importlib\nimportlib.import_module('app.emulator.http.server')"),
        ("workers.jobs", "from app.emulator.billing.books import Books"),
        ("app.web.server", "from arq import create_pool"),
        ("app.bootstrap", "import arq.connections"),
        ("workers.duties.schedules", "from app.cli.options import AsJson"),
        ("app.views.runs", "from app.cli.terminal import show"),
        ("app.views.runs", "from rich.table import Table"),
        ("app.services.load", "import typer"),
        ("workers.__main__", "from arq.worker import run_worker"),
    ],
)
def test_each_rule_can_fail(module: str, source: str) -> None:
    assert [fault for one in imports_of(module, source) for fault in faults_of(one)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.domain.task", "from app.domain.credits import Verdict\nimport os"),
        ("app.domain.task", "from .credits import Verdict"),
        ("app.ports", "from app.domain.task import TaskState"),
        ("app.services.submit", "from app.ports import Clock\nfrom app.services.pace import pace"),
        ("app.store.store", "from app.store.database import Database"),
        ("app.queue", "from arq.connections import ArqRedis"),
        ("app.web.server", "from app.bootstrap import open_store\nfrom app.services.settle import settle"),
        ("app.cli.emulator", "from app.emulator.command import run"),
        ("workers.jobs", "from app.bootstrap import open_store\nfrom arq import Retry"),
        ("app.emulator.engine.emulator", "from . import places\nfrom .books import Books"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert not [fault for one in imports_of(module, source) for fault in faults_of(one)]


def project_files() -> list[Path]:
    """Tracked files of a checkout; otherwise, in an unpacked archive, every file that is not built."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    built = {".venv", ".tallyhook", "__pycache__", ".hypothesis", "dist", "build"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(p in built or p.endswith("_cache") for p in path.parts)
    ]


# Joined here, so that this file does not name them itself.
FOREIGN = [
    "/" + "work/",
    "/" + "root/",
    "pypi." + "org",
    "pypi" + "-mirror",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "index" + "-url",
    "proxy." + "golang.org",
]


def foreign_in(text: str) -> list[str]:
    """Which places of one machine, and which package registries, a text names."""
    return [name for name in FOREIGN if name in text]


def test_no_file_names_a_machine_or_a_registry() -> None:
    files = project_files()
    assert len(files) > 40, "the files were not found"
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := foreign_in(path.read_bytes().decode("utf-8", "replace")))
    }
    assert not found


def test_a_foreign_name_is_found() -> None:
    for name in FOREIGN:
        assert foreign_in(f"see {name}x for it") == [name]
    assert not foreign_in("the /workers folder and ~/root")
