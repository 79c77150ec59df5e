"""The intake's order: what is stored, and who is answered, when."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from app.domain.standing import NewTask, Producer, Taking
from app.domain.task import new_id
from app.services.intake import Intake

NOW_MS = 1_780_000_000_000


def taking(key: str) -> Taking:
    task = NewTask(new_id(NOW_MS), "GEMINI", "{}", 5, "", Decimal(4), key)
    return Taking(Producer(new_id(NOW_MS), "shop", "default"), [task], "provider.task", "request-1")


async def test_the_next_group_is_on_its_way_before_the_last_one_is_answered() -> None:
    seen: list[str] = []

    async def take_tasks(takings: list[Taking], now_ms: int) -> set[str]:
        seen.append("stores " + " ".join(str(task.key) for each in takings for task in each.tasks))
        await asyncio.sleep(0)
        return set()

    def queue(key: str) -> None:
        def done(known: set[str], error: BaseException | None) -> None:
            assert (known, error) == (set(), None)
            seen.append(f"answers {key}")

        intake.queue(taking(key), done)

    store: Any = SimpleNamespace(standing=SimpleNamespace(take_tasks=take_tasks))
    intake = Intake(store, lambda: NOW_MS, lambda: None)
    queue("a")
    await asyncio.sleep(0)
    queue("b")
    queue("c")
    await intake.close()
    await asyncio.sleep(0)
    assert seen == ["stores a", "stores b c", "answers a", "answers b", "answers c"]
