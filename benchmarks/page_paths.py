"""Every address that a page is read at: each page, its first part and a deep one, and each filter that is
offered. What is new in app.page.table and not here fails tests/integration/page/test_plans.py."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.api.pages import write_cursor
from app.domain.task_filter import TaskFilter, filter_text
from app.store import Store

FILTERS = {
    "state": ("failed", "completed"),
    "task_type": ("GROK", "CHATGPT"),
    "country": ("GB", "US"),
    "verdict": ("overcharged", "matched"),
    "custom_id": ("none", "none"),
    "text": ("no such words", "prompt"),
}
"""Field of a TaskFilter -> a value that nothing of the history has, and one that all of it has."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An address, of which page it is, and what it asks for, for people."""

    route: str
    path: str
    what: str = "first"


def filters(sizes: Sequence[int] = range(1, len(FILTERS) + 1)) -> Iterator[TaskFilter]:
    """Of so many words, in every combination; each as nothing and as everything has it."""
    for size in sizes:
        for names in itertools.combinations(FILTERS, size):
            for which in (0, 1):
                yield TaskFilter(**{name: FILTERS[name][which] for name in names})


async def shown_paths(
    store: Store, run_id: str, sizes: Sequence[int] = range(1, len(FILTERS) + 1)
) -> list[Shown]:
    """Of a run among others, in a database that benchmarks/old_tasks.py has filled."""
    newest = await store.run_pages.runs_before(None, 5_000)
    whole = await store.task_pages.tasks_after(run_id, 0, 1, TaskFilter())
    middle = await _middle(store, run_id)
    (entry,) = (await store.books_pages.ledger_before(None, 1, None)).rows
    (finding,) = (await store.books_pages.findings_before(None, 1, None, None)).rows
    task_id, id_ = str(whole.rows[0]["id"]), newest[len(newest) // 2].run.id
    deep = {
        "/": write_cursor("runs", id_),
        "/account": write_cursor("ledger-back", entry["id"] // 2),
        "/findings": write_cursor("findings-back", finding["id"] // 2),
        "/intake": write_cursor("inbox", entry["at_ms"], id_),
        "/relay": write_cursor("endpoints", id_),
        "/actions": write_cursor("actions", id_),
        "/bulk": write_cursor("bulk-changes", id_),
        "/tokens": write_cursor("tokens", id_),
    }
    of_run, cursor = f"/runs/{run_id}", write_cursor("tasks", middle)
    found = [Shown(path, path) for path in ("/schedules", "/engines", "/submit")]
    found += [Shown(path, path) for path in deep]
    found += [Shown(path, f"{path}?cursor={place}", "deep") for path, place in deep.items()]
    found += [
        Shown("/findings", f"/findings?run={run_id}", "of a run"),
        Shown("/findings", f"/findings?run={run_id}&cursor={deep['/findings']}", "of a run, deep"),
        Shown("/runs/{run_id}", of_run),
        Shown("/runs/{run_id}", f"{of_run}?cursor={cursor}", "deep"),
        Shown("/runs/{run_id}/cancel", f"{of_run}/cancel"),
        Shown("/tasks/{task_id}", f"/tasks/{task_id}"),
        Shown("/tasks/{task_id}", f"/tasks/{await _oldest_task(store)}", "the oldest"),
        Shown("/tasks/{task_id}/retry", f"/tasks/{task_id}/retry"),
        Shown("/tasks/{task_id}/cancel", f"/tasks/{task_id}/cancel"),
    ]
    found += await _single(store)
    for wanted in filters(sizes):
        text = filter_text(wanted)
        for more, said in (({}, text), ({"cursor": cursor}, f"{text}, deep")):
            found.append(Shown("/runs/{run_id}", f"{of_run}?{urlencode({'q': text, **more})}", said))
    return found


async def _single(store: Store) -> list[Shown]:
    """Pages of one thing, of which there is at least one."""
    token = (await store.access.list_tokens(1, None, None))[0]
    delivery = (await store.set_aside.set_aside_page(None, 1, None))[0]
    change = (await store.bulk_changes.changes_before(None, 1, None))[0]
    return [
        Shown("/tokens/{token_id}/revoke", f"/tokens/{token.id}/revoke"),
        Shown("/intake/{delivery_id}", f"/intake/{delivery.id}"),
        Shown("/bulk/{change_id}", f"/bulk/{change.id}"),
    ]


async def _oldest_task(store: Store) -> str:
    """Its reports may be of any day since."""
    entry = (await store.books_pages.ledger_after(0, 1, None)).rows[0]
    return str(entry["task_id"])


async def _middle(store: Store, run_id: str) -> int:
    progress = await store.queries.progress(run_id)
    return progress.tasks // 2
