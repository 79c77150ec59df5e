"""When an engine is said to fail: by its newest results, each account by itself, once a day."""

from collections.abc import Sequence

import pytest

from app.domain.notices.failing_engines import EngineBounds, EngineResult, failing_engines
from app.domain.time_format import DAY_MS

BOUNDS = EngineBounds(success_min=0.5, tasks=10, usable_chars_min=20)
GOOD = EngineResult("default", "CHATGPT", True, 500)
SHORT = GOOD._replace(chars=19)
FAILED = EngineResult("default", "CHATGPT", False, 0)


@pytest.mark.parametrize(
    ("newest_first", "usable"),
    [
        ([GOOD] * 10, None),
        ([FAILED] * 5 + [GOOD] * 5, None),
        ([FAILED] * 6 + [GOOD] * 4, 4),
        ([SHORT] * 3 + [FAILED] * 3 + [GOOD] * 40, 4),
        ([GOOD] * 5 + [FAILED] * 400, None),
        ([FAILED] * 9, None),
        ([GOOD._replace(chars=None)] * 10, None),
        ([GOOD._replace(chars=20)] * 10, None),
    ],
)
def test_only_the_newest_results_count(newest_first: Sequence[EngineResult], usable: int | None) -> None:
    notices = list(failing_engines(newest_first, BOUNDS, 0))
    assert [notice.data["usable"] for notice in notices] == ([] if usable is None else [usable])


def test_accounts_and_engines_are_judged_by_themselves() -> None:
    three = (GOOD, FAILED._replace(task_type="GROK"), GOOD._replace(account="eu"))
    mixed = [one for _ in range(10) for one in three]
    (notice,) = failing_engines(mixed, BOUNDS, 0)
    assert (notice.account, notice.data["engine"], notice.data["failed"]) == ("default", "GROK", 10)


def test_it_is_said_once_a_day() -> None:
    keys = [next(failing_engines([FAILED] * 10, BOUNDS, at)).dedupe_key for at in (0, DAY_MS - 1, DAY_MS)]
    assert keys[0] == keys[1] != keys[2]


def test_it_can_be_switched_off() -> None:
    assert not list(failing_engines([FAILED] * 10, EngineBounds(success_min=0, tasks=10), 0))
