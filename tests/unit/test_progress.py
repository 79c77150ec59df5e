"""What a person, or a log, sees of a run while it goes on."""

import io
from decimal import Decimal

import pytest
from rich.cells import cell_len
from rich.text import Text

from app.cli.runs.draw import draw_runs
from app.cli.runs.pace import OVER_S, Pace
from app.cli.runs.progress import Seen, drawing, progress_line, shown_progress
from app.cli.terminal import ROWS_MAX, CleanConsole, draw_largest, table
from app.domain.run_reason import ReasonCode
from app.store.read.progress import RunProgress
from app.store.read.runs import RunRow
from app.store.read.waiting import Waiting
from app.views.waiting import waiting_lines
from tests.clock import START_MS, unix_ms

WORKER = {"running": True, "last_seen_at": None, "message": "a worker is running"}
NO_WORKER = WORKER | {"running": False, "message": "no worker is running"}
STATES = {"completed": 4_890, "failed": 12, "submitted": 98}
WAITS = ("98 tasks are at the provider without a report; asked for at 02:20 UTC at the latest",)


def progress(states: dict[str, int]) -> RunProgress:
    return RunProgress(tasks=sum(states.values()), states=states, charged=Decimal(24_450))


def seen(at_s: float = 0.0, states: dict[str, int] | None = None, waits: tuple[str, ...] = WAITS) -> Seen:
    now_ms = START_MS + round(at_s * 1000)
    return Seen(at_s, now_ms, "running", None, progress(states or STATES), waits)


def run_row(state: str = "running", code: str | None = None) -> RunRow:
    return RunRow("id", "monday", "-", state, None, None, 0, START_MS, "default", False, code)


def paced(*looks: tuple[float, int]) -> Pace:
    pace = Pace()
    for at_s, closed in looks:
        pace.note(at_s, closed)
    return pace


def test_the_pace_is_that_of_the_last_minute() -> None:
    assert paced().per_s is None
    assert paced((0, 0), (1, 50)).per_s is None, "too short to know"
    assert paced((0, 0), (10, 410)).per_s == 41
    assert paced((0, 0), (10, 1_000), (10 + OVER_S, 1_060)).per_s == 1
    assert paced((0, 0), (10, 100)).left_s(50) == 5
    assert paced((0, 100), (10, 100)).left_s(50) is None
    assert paced((0, 100), (10, 20)).per_s is None, "a retry opened some again"


def test_a_line_tells_counts_rate_credits_the_end_and_why_it_waits() -> None:
    line = progress_line("monday", seen(), paced((-10, 4_492), (0, 4_902)))
    assert line == (
        "2026-10-01 00:00:00 monday: running, 4,902 of 5,000 tasks in (98 %); 98 at the provider, 12 failed, "
        f"24,450 credits, 41/s, ends about 00:00 UTC; {WAITS[0]}"
    )


def test_without_a_terminal_a_line_comes_every_so_often() -> None:
    output = io.StringIO()
    console = CleanConsole(width=80)
    console.file = output
    with shown_progress(console, "monday") as show:
        for at_s in range(0, 1_200):
            show(seen(float(at_s)))
    times = [line[11:19] for line in output.getvalue().splitlines()]
    assert times[:4] == ["00:00:00", "00:00:10", "00:00:20", "00:00:30"]
    assert 20 < len(times) < 35
    assert times[-2][:5] != times[-1][:5], "a minute apart in the end"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bar_counts_and_total_are_readable_at_any_width(width: int) -> None:
    output = io.StringIO()
    console = CleanConsole(width=width)
    console.file = output
    console.print(drawing("a-run-with-a-name-that-is-long-20261127-140510", seen(), paced((-9, 0), (0, 9))))
    lines = output.getvalue().splitlines()
    assert all(len(line) <= width for line in lines), lines
    assert lines[0].rstrip().endswith("4,902 of 5,000 98 %")
    assert lines[0].count("━") >= 8
    text = " ".join(" ".join(lines).split())
    assert "98 at the provider · 12 failed · 24,450 credits" in text
    assert WAITS[0] in text


def test_why_a_run_waits() -> None:
    now = unix_ms("2026-10-01T02:10:00Z")

    def lines(run: RunRow, waiting: Waiting, worker: dict[str, object] = WORKER) -> list[str]:
        return waiting_lines(run, progress(STATES), waiting, worker, short_id="5d2f")

    at_provider = Waiting(now, unreported=98, ask_at_ms=now + 600_000)
    assert lines(run_row(), at_provider) == list(WAITS)
    assert lines(run_row(), Waiting(now, unreported=1, ask_at_ms=now)) == [
        "1 task is at the provider without a report; asked for now"
    ]
    [no_worker, again] = lines(run_row(), Waiting(now, put_off=3, send_at_ms=now + 90_000_000), NO_WORKER)
    assert no_worker == "no worker is running: run tallyhook up, or start tallyhook worker"
    assert again == "3 tasks are to be sent again, the first at 2026-10-02 03:10 UTC"
    [remedy] = lines(run_row("stopped", ReasonCode.BAD_KEY), Waiting(now))
    assert "CLORO_API_KEY" in remedy and "tallyhook resume 5d2f" in remedy
    [unread] = lines(run_row("loading"), Waiting(now))
    assert "submit FILE --resume 5d2f" in unread


def test_a_run_that_is_over_waits_for_nothing() -> None:
    over = progress({"completed": 2})
    assert waiting_lines(run_row("finished"), over, Waiting(START_MS), NO_WORKER, short_id="5d2f") == []


@pytest.mark.parametrize(("columns", "lost"), [(120, ""), (80, "account"), (60, "created"), (40, "failed")])
def test_names_and_states_of_runs_are_readable_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, lost: str
) -> None:
    states = {"completed": 99_000, "failed": 1_000}
    names = ("prompts-20261001-021000", 'w[red]"[/red]', "東京" * 50, "x" * 100)
    runs = [
        {
            "run": {"id": "0" * 32, "name": name, "account": "default", "state": "cancelled"}
            | {"created_at": "2026-10-01T02:10:00.000Z"},
            "states": states,
            "tasks": 100_000,
            "open": 0,
            "credits": {"charged": 500_000},
        }
        for name in names
    ]
    output = CleanConsole(width=columns)
    monkeypatch.setattr(CleanConsole, "is_terminal", True)
    with output.capture() as taken:
        draw_runs(output, {"runs": runs})
    lines = Text.from_ansi(taken.get()).plain.splitlines()
    assert len(lines) == 5 and all(cell_len(line.rstrip()) <= columns for line in lines)
    assert all("cancelled" in line and "100000" in line for line in lines[1:])
    shown = 20 if columns > 40 else 6
    assert names[0][:shown] in lines[1] and names[1][:shown] in lines[2]
    assert not lost or lost not in lines[0]


@pytest.mark.parametrize(("terminal", "rows"), [(True, ROWS_MAX), (False, 250)])
def test_a_terminal_shows_the_largest_of_hundreds_of_countries(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, rows: int
) -> None:
    parts = [{"country": f"c{n}", "tasks": 9 if n % 10 == 0 else n % 3} for n in range(250)]
    monkeypatch.setattr(CleanConsole, "is_terminal", terminal)
    output = CleanConsole(width=80)
    with output.capture() as taken:
        draw_largest(output, table("country"), parts, lambda part: [part["country"]])
    shown = Text.from_ansi(taken.get()).plain.split()
    assert shown[1 : rows + 1] == [f"c{n}" for n in range(0, 250, 10 if terminal else 1)][:rows]
    assert ("230 more" in taken.get()) is terminal
