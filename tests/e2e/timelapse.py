"""Metrics of real processes, scraped over time, as input for `promtool test rules`: a minute in a second.

Everything that waits is short in these processes, so time is told in the same measure: a real second counts
as a minute, and so does each second of a gauge that is an age. What is measured of a single call (histograms,
clocks) is left as it is.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.domain.state_gauges import STATE_GAUGES
from tests.promql import metrics_in

LAPSE = 60
"""So many seconds pass in one."""
TICK_S = 0.5
"""Between two scrapes: half a minute."""
SCRAPE_TIMEOUT_S = 3.0
"""Beside the next ones: on a busy machine an answer takes longer than a tick, half a minute there."""
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
AGES = {f"tallyhook_{name}" for name in STATE_GAUGES if name.endswith("_seconds") and "timestamp" not in name}
Series = tuple[str, tuple[tuple[str, str], ...]]
Tick = dict[Series, float]


def rules() -> dict[str, str]:
    """Alert -> its expression."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


@dataclass
class Recorder:
    """Scrapes each process every TICK_S, from `start` to `stop`."""

    targets: Mapping[str, str]
    """Process -> URL of its metrics."""
    ticks: list[Tick] = field(default_factory=list)
    _began_s: float = 0.0
    _filling: "set[asyncio.Task[None]]" = field(default_factory=set)
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self._began_s = time.time()
        self._task = asyncio.create_task(self._scrape())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _scrape(self) -> None:
        timeout = aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                due_s = self._began_s + (len(self.ticks) + 1) * TICK_S
                tick: Tick = {}
                self.ticks.append(tick)
                filling = asyncio.create_task(self._fill(client, tick))
                self._filling.add(filling)
                filling.add_done_callback(self._filling.discard)
                await asyncio.sleep(max(due_s - time.time(), 0))

    async def _fill(self, client: aiohttp.ClientSession, tick: Tick) -> None:
        texts = await asyncio.gather(*(_text(client, url) for url in self.targets.values()))
        for process, text in zip(self.targets, texts, strict=True):
            tick |= self._samples(process, text)

    async def settled(self, last: int) -> list[Tick]:
        """All ticks before `last`, once each has its answers."""
        await asyncio.gather(*self._filling, return_exceptions=True)
        return self.ticks[:last]

    def _samples(self, process: str, text: str | None) -> Tick:
        of_process = (("instance", process), ("job", "tallyhook"))
        tick: Tick = {("up", of_process): float(text is not None)}
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                if not sample.name.startswith("tallyhook_"):
                    continue
                value = sample.value
                if sample.name in AGES:
                    value *= LAPSE
                elif sample.name.endswith("_timestamp_seconds"):
                    value = (value - self._began_s) * LAPSE
                tick[sample.name, tuple(sorted((*sample.labels.items(), *of_process)))] = value
        return tick


def most(tick: Tick, name: str, **labels: str) -> float:
    """Of the series of a metric with these labels; 0: there is none."""
    found = (value for (series, of), value in tick.items() if series == name and labels.items() <= set(of))
    return max(found, default=0.0)


async def _text(client: aiohttp.ClientSession, url: str) -> str | None:
    # RuntimeError: the recording has ended meanwhile.
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, RuntimeError):
        async with client.get(url) as response:
            return await response.text()
    return None


def begun_at(ticks: Sequence[Tick], first: int) -> list[Tick]:
    """The ticks from `first` on, as if the recording had begun with it."""
    earlier_s = first * TICK_S * LAPSE
    return [
        {s: v - earlier_s if s[0].endswith("_timestamp_seconds") else v for s, v in tick.items()}
        for tick in ticks[first:]
    ]


def stretched(ticks: Sequence[Tick], first: int, last: int, minutes: int, *, pace: int = 1) -> list[Tick]:
    """The ticks with those from `first` to `last` repeated for so many minutes; counters go on, `pace` times
    as fast: LAPSE for what has a pace of its own, such as a rest of a second after each refusal."""
    part = ticks[first:last]
    start = {series: value for series, value in part[0].items() if series[0].endswith("_total")}
    grown = {series: part[-1].get(series, value) - value for series, value in start.items()}
    times = minutes * 60 // (int(TICK_S * LAPSE) * len(part)) + 1

    def faster(tick: Tick, number: int) -> Tick:
        return {
            s: v if s not in start else start[s] + ((v - start[s]) + grown[s] * number) * pace
            for s, v in tick.items()
        }

    found = list(ticks[:first]) + [faster(tick, number) for number in range(times) for tick in part]
    more = {series: by * (times * pace - 1) for series, by in grown.items()}
    return found + [{s: v + more.get(s, 0.0) for s, v in tick.items()} for tick in ticks[last:]]


def check(folder: Path, name: str, ticks: Sequence[Tick], alerts: Iterable[str], *, well: int) -> list[str]:
    """What is wrong: each alert is silent at the tick `well`, fires after it, and is silent at the end."""
    alerts, last = sorted(alerts), len(ticks) - 1
    expressions = rules()
    wanted = {"ALERTS"}.union(*(metrics_in(expressions[alert]) for alert in alerts))
    step_s = int(TICK_S * LAPSE)
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{step_s}s",
        "tests": [
            {
                "interval": f"{step_s}s",
                "input_series": [
                    {"series": _named(series), "values": _values(series, ticks)}
                    for series in sorted({s for tick in ticks for s in tick})
                    if series[0] in wanted
                ],
                "promql_expr_test": [
                    test
                    for alert in alerts
                    for test in (
                        _expected(_fires(alert), well * step_s, 0),
                        _expected(
                            f"max_over_time(({_fires(alert)})[{(last - well) * step_s}s:{step_s}s])",
                            last * step_s,
                            1,
                        ),
                        _expected(_fires(alert), last * step_s, 0),
                    )
                ],
            }
        ],
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document, width=10**9))
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"{name}: {done.stdout}{done.stderr}"]


def _fires(alert: str) -> str:
    return f'(count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0) or vector(0)'


def _expected(expression: str, at_s: int, value: int) -> dict[str, Any]:
    return {"expr": expression, "eval_time": f"{at_s}s", "exp_samples": [{"labels": "{}", "value": value}]}


def _named(series: Series) -> str:
    name, labels = series
    return f"{name}{{{', '.join(f'{key}={json.dumps(value)}' for key, value in labels)}}}"


def _values(series: Series, ticks: Sequence[Tick]) -> str:
    """As promtool notes them: `_` is no sample, and after the last one `stale` says that it is gone."""
    found, was_there = [], False
    for tick in ticks:
        value = tick.get(series)
        if value is None:
            found.append("stale" if was_there else "_")
        else:
            found.append("NaN" if value != value else f"{value:.6f}")
        was_there = value is not None
    return " ".join(found)
