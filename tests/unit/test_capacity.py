"""docs/capacity.md is of the figures that are kept."""

from benchmarks import capacity


def test_the_page_has_what_the_kept_costs_come_to() -> None:
    assert capacity.table() in capacity.PAGE.read_text(), "python -m benchmarks.capacity writes it again"


def test_a_million_a_month_by_hand() -> None:
    cost = {f"processor time, {name}": 100.0 for name in capacity.PROCESSES}
    cost |= {f"stored, {name}": 500.0 for name in (*capacity.FOR_EVER, "deliveries")}
    found = capacity.column(1_000_000, cost | {"write-ahead log": 9_000.0, "redis commands": 0.5})
    # 1,000,000 / 30 / 8 h are 1.157 a second; each costs 100 µs; 0.6 of a core may be used.
    assert found["a second, over 8 hours"] == "1.2"
    assert found["cores for web"] == "0.00019"
    assert (found["bodies, kept 30 days"], found["rows that stay, a year"]) == ("500 MB", "24 GB")
    assert (found["write-ahead log, a day"], found["archive, a year"]) == ("300 MB", "24.9 GB")
