"""What the jobs and duties of a worker process work with. Holds no rule."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.config import Settings
from app.ports import Clock, Jitter
from app.provider.client import Client
from app.queue import Queue
from app.services.admission import Admission
from app.services.reachability import Reachability
from app.store import Store
from workers.signals import WorkerSignals
from workers.webhook_address import WebhookAddress

SETTLES_AT_ONCE = 3
"""Of one process: while one chunk is in the database, the next is unpacked and read. More would be no faster,
and each holds some 10 MB of answers."""


@dataclass(slots=True)
class Context:
    """Made once per process."""

    settings: Settings
    store: Store
    providers: Mapping[str, Client]
    """By account name."""
    queue: Queue
    clock: Clock
    jitter: Jitter
    admissions: dict[str, Admission] = field(default_factory=dict)
    """By account name; made at first use."""
    reachabilities: dict[str, Reachability] = field(default_factory=dict)
    """By account name; made at first use."""
    settle_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SETTLES_AT_ONCE))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    address: WebhookAddress | None = None
    """None: it is known, and stays as it is."""
    signals: WorkerSignals = field(default_factory=WorkerSignals)
    work: "list[asyncio.Task[None]]" = field(default_factory=list)
    """The tasks that must run, once they are started."""
    beat_s: float | None = None
    """When the database last took word that this worker runs (monotonic); None: not yet."""
    sending: "asyncio.Task[None] | None" = None
    """The task of this process that sends, once it was started."""
