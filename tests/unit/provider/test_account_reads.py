"""What an account says of its slots and its balance (C-G.5, C-E.6), and what is not an answer."""

from decimal import Decimal

import pytest

from app.domain.accounting.balances import Balance
from app.ports import Slots
from app.provider.wire import read_balance, read_slots

NOW = 1_780_000_000_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"queuedTasks":3,"processingTasks":2,"concurrency":{"used":2,"max":5}}', Slots(5, 2)),
        (b'{"queuedTasks":3,"concurrency":null}', Slots(None)),
        (b'{"queuedTasks":3}', Slots(None)),
        (b'{"queuedTasks":3,"concurrency":{"max":true}}', Slots(None)),
        (b'{"queuedTasks":3,"concurrency":{"max":0}}', Slots(None)),
        (b'{"success":false}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_slots(body: bytes, expected: Slots | None) -> None:
    assert read_slots(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"remaining":48210,"perCycle":1562500,"cycleResetsAt":"2026-08-10T17:35:27.000Z"}',
            Balance(NOW, Decimal(48210), Decimal(1562500), 1786383327000),
        ),
        (b'{"remaining":500,"perCycle":null,"cycleResetsAt":null}', Balance(NOW, Decimal(500), None, None)),
        (b'{"remaining":-12.5}', Balance(NOW, Decimal("-12.5"), None, None)),
        (b'{"remaining":true}', None),
        (b'{"remaining":"500"}', None),
        (b'{"remaining":5,"cycleResetsAt":"soon"}', None),
        (b'{"remaining":5,"perCycle":-1}', None),
        (b'{"perCycle":5}', None),
        (b"not found", None),
    ],
)
def test_balance(body: bytes, expected: Balance | None) -> None:
    assert read_balance(body, NOW) == expected
