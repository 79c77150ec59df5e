"""What moves on open pages: one look a second for all who listen in this process, drawn once for all who see
the same, and sent to each as fragments of what changed. Nothing is looked at while nobody listens.
"""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from htpy import Node, div, hx_partial, p

from app.api.live import Looks, Told, digest_of, told
from app.api.native.runs import Run, run_model
from app.api.route import Parts
from app.domain.bulk_change import BulkChange
from app.domain.task import TaskState
from app.page.layout import markup
from app.store import Store
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.store.read.state import State
from app.store.read.waiting import Waiting
from app.views.runs import Document
from app.views.workers import workers_document

OPEN_MAX = 200
"""Open runs whose sends are counted."""
NEWEST, FINDINGS = 25, 5
"""Runs and findings that the overview shows."""
WATCHED_MAX = 50
"""Single runs that are looked at, and bulk changes: pages of more are as they were loaded."""
COUNTED_MAX = 20_000
"""Open tasks of a run that are counted by what they wait for; of more only the reasons are said."""
WAITING_MAX = 10
"""Of these, those whose open tasks are counted by what they wait for."""
RATE_OVER_S = 10.0
SHARED = "page live"


@dataclass(frozen=True, slots=True)
class RunNow:
    """A run as one look saw it."""

    timed: TimedRun
    progress: RunProgress
    waiting: Waiting

    @property
    def model(self) -> Run:
        return run_model(self.timed, self.progress)


@dataclass(frozen=True, slots=True)
class Whole:
    """What only the overview shows."""

    state: State
    newest: Mapping[str | None, Sequence[str]]
    """Account, or None for all -> ids of its newest runs."""
    findings: Mapping[str | None, Sequence[dict[str, Any]]]
    """Account, or None for all -> the newest."""
    rates: Mapping[str, float]
    """Account -> tasks sent a second of late; none where it is not measured yet."""


@dataclass(slots=True)
class Seen:
    """What one look saw."""

    topics: frozenset["Topic"]
    """For which it looked."""

    now_ms: int
    took_ms: int
    """How long the database needed."""
    worker: Document
    runs: Mapping[str, RunNow]
    changes: Mapping[str, BulkChange]
    """Bulk changes that are looked at, by id."""
    whole: Whole | None = None
    """None: only single runs were looked at."""
    drawn: dict[Any, list[bytes]] = field(default_factory=dict)

    @property
    def of_all(self) -> Whole:
        """Of a look for the overview."""
        if self.whole is None:
            raise AssertionError("a look at single runs")
        return self.whole


Draw = Callable[[Seen], Mapping[str, Node]]
"""Id of an element of the page -> what is to stand in it now."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What one kind of page listens to. Equal topics are drawn once; `draw` may know nothing else."""

    account: str | None
    """Whose runs its caller sees; None: all."""
    run_id: str | None = None
    change_id: str | None = None
    """A bulk change. Neither: the overview."""

    @property
    def is_overview(self) -> bool:
        return self.run_id is None and self.change_id is None


class PageLive:
    """Of one process."""

    def __init__(self, store: Store, clock: Callable[[], int], stopping: asyncio.Event) -> None:
        self._store, self._clock = store, clock
        self._topics: Counter[Topic] = Counter()
        self._looks: Looks[Seen] = Looks(self._look, stopping)
        self._sent = Sent()

    async def events(self, topic: Topic, draw: Draw, last_event_id: str) -> AsyncIterator[bytes]:
        """Events for one page, each with what of it changed."""

        def tell(seen: Seen, known: frozenset[str]) -> Told:
            if topic not in seen.topics:
                return b"", known  # it began before this page was opened: nothing is known of it
            if topic not in seen.drawn:
                seen.drawn[topic] = [fragment(id_, node) for id_, node in draw(seen).items()]
            return _event(seen.drawn[topic], known)

        self._topics[topic] += 1
        events = told(self._looks, last_event_id, tell)
        try:
            async for event in events:
                yield event
        finally:
            # Now, not when it is found to be garbage: whoever listens is counted.
            await events.aclose()
            self._topics[topic] -= 1
            self._topics += Counter()  # those that nobody listens to are gone

    async def look_once(self, topic: Topic) -> Seen:
        """For a page as it is loaded."""
        return await self._read([topic])

    async def close(self) -> None:
        """Wait for what goes on; the process is stopping."""
        await self._looks.close()

    async def _look(self) -> Seen:
        return await self._read(list(self._topics))

    async def _read(self, topics: Sequence[Topic]) -> Seen:
        """What these topics show, and nothing else: the page of a run asks nothing of the whole."""
        began_s, pages = time.monotonic(), self._store.run_pages
        accounts = {topic.account for topic in topics if topic.is_overview}
        watched = [topic.run_id for topic in topics if topic.run_id is not None][:WATCHED_MAX]
        found = {run.run.id: run for run in await pages.live_runs(OPEN_MAX if accounts else 0, 0, watched)}
        newest = {account: await pages.runs_before(None, NEWEST, account) for account in accounts}
        found |= {row.run.id: row for rows in newest.values() for row in rows}
        changes = await self._changes({topic.change_id for topic in topics if topic.change_id is not None})
        progress = await self._store.queries.progress_of_runs(list(found))
        waiting = {
            run_id: await self._waiting(progress.get(run_id), run_id) for run_id in watched[:WAITING_MAX]
        }
        whole = await self._whole(newest, found, progress) if accounts else None
        worker, now_ms = await workers_document(self._store), self._clock()
        runs = {
            i: RunNow(timed, progress[i], waiting.get(i) or Waiting(now_ms)) for i, timed in found.items()
        }
        took_ms = round((time.monotonic() - began_s) * 1000)
        return Seen(frozenset(topics), now_ms, took_ms, worker, runs, changes, whole)

    async def _whole(
        self,
        newest: Mapping[str | None, Sequence[TimedRun]],
        found: Mapping[str, TimedRun],
        progress: Mapping[str, RunProgress],
    ) -> Whole:
        self._sent.note(time.monotonic(), found, progress)
        ids = {account: [row.run.id for row in rows] for account, rows in newest.items()}
        books = self._store.books_pages
        findings = {
            account: (await books.findings_before(None, FINDINGS, account, None)).rows for account in newest
        }
        return Whole(await self._store.state.state(), ids, findings, self._sent.rates())

    async def _changes(self, ids: Collection[str]) -> dict[str, BulkChange]:
        read = self._store.bulk_changes.find
        found = [await read(one) for one in sorted(ids)[:WATCHED_MAX]]
        return {change.id: change for change in found if change is not None}

    async def _waiting(self, progress: RunProgress | None, run_id: str) -> Waiting | None:
        if progress is None or not 0 < progress.open <= COUNTED_MAX:
            return None
        return await self._store.waiting.waiting(run_id)


class Sent:
    """How many tasks were sent of late, by account, from one look to the next."""

    def __init__(self) -> None:
        self._of_runs: dict[str, int] = {}
        self._total: defaultdict[str, int] = defaultdict(int)
        self._looks: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, at_s: float, runs: Mapping[str, TimedRun], progress: Mapping[str, RunProgress]) -> None:
        """One look. A run that is new to it adds nothing, nor one whose tasks go back to be sent again."""
        for run_id, timed in runs.items():
            states = progress[run_id].states
            unsent = states.get(TaskState.PENDING, 0) + states.get(TaskState.CANCELLED, 0)
            sent = progress[run_id].tasks - unsent
            self._total[timed.run.account] += max(0, sent - self._of_runs.get(run_id, sent))
            self._of_runs[run_id] = sent
        self._of_runs = {run_id: sent for run_id, sent in self._of_runs.items() if run_id in runs}
        if self._looks and at_s - self._looks[-1][0] > RATE_OVER_S:
            self._looks.clear()  # nobody has looked meanwhile
        self._looks.append((at_s, dict(self._total)))
        while len(self._looks) > 2 and at_s - self._looks[1][0] >= RATE_OVER_S:
            self._looks.popleft()

    def rates(self) -> dict[str, float]:
        """Account -> tasks a second; empty while nothing is known."""
        (began_s, before), (ended_s, after) = self._looks[0], self._looks[-1]
        if ended_s - began_s < 1:
            return {}
        return {name: (sum_ - before.get(name, 0)) / (ended_s - began_s) for name, sum_ in after.items()}


def live_of(parts: Parts) -> PageLive:
    """The one of this process."""
    if SHARED not in parts.shared:
        parts.shared[SHARED] = PageLive(parts.store, parts.clock, parts.stopping)
    live: PageLive = parts.shared[SHARED]
    return live


def fragment(id_: str, node: Node) -> bytes:
    """What is to stand in an element of the page, as htmx takes it."""
    return markup(hx_partial(hx_target=f"#{id_}", hx_swap="innerMorph")[node])


def listener(path: str) -> Node:
    """What makes a page listen; without JavaScript it is nothing, and while the tab is hidden it rests. What
    is said while nothing comes is shown by page.js."""
    said = "Updates have stopped: what is shown here is as it was. They are asked for again and again."
    return [
        div("#live", {"hx-sse:connect": path}, hidden=True),
        p("#stale.notice.warn", role="status", hidden=True)[said],
    ]


def _event(fragments: Sequence[bytes], known: frozenset[str]) -> Told:
    digests = {digest_of(one): one for one in fragments}
    new = b"".join(one for digest, one in digests.items() if digest not in known)
    if not new:
        return b"", frozenset(digests)
    lines = b"".join(b"data: " + line + b"\n" for line in new.split(b"\n"))
    return b"id: " + "".join(digests).encode() + b"\n" + lines + b"\n", frozenset(digests)
