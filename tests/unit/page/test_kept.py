"""What is read beside pages: waited for a moment by those who come first, and by nobody who comes later."""

import asyncio
import math

import pytest

from app.page import kept
from app.page.kept import Kept


async def test_what_takes_long_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "WITHIN_S", 0.02)
    may_end, looks = asyncio.Event(), 0

    async def look() -> str:
        nonlocal looks
        looks += 1
        await may_end.wait()
        return "found"

    one = Kept[str](math.inf)
    assert await one.get(look) is None
    later = one.get(look)
    with pytest.raises(StopIteration) as end:
        later.send(None)
    assert end.value.value is None, "at once"
    may_end.set()
    for _ in range(5):
        await asyncio.sleep(0)  # its turn comes
    assert (await one.get(look), looks) == ("found", 1)
    await one.close()
