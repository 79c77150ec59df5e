"""One row of the results: a figure of ours and its reference of the same run. Computes; reads nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A benchmark on one store, ready for latest.json."""

    benchmark: str
    store: str
    unit: str
    value: float
    """Ours: the median of the rounds."""
    reference: float
    """Median of the rounds."""
    ratio: float
    """Median of the rounds' own ratios: each round compares what was measured one after the other."""
    bar: float | None
    """None: for information."""
    bar_kind: str
    """min: the ratio must reach it; max: it must not exceed it."""
    holds: bool | None
    rounds: int
    spread: tuple[float, float]
    """Lowest and highest ratio of a round."""
    values: tuple[float, ...]
    references: tuple[float, ...]
    reference_is: str

    def document(self) -> dict[str, Any]:
        """As it is in the results, figures rounded to what they are worth."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    def line(self) -> str:
        """For the terminal."""
        verdict = {None: "", True: "holds", False: "FALLS SHORT"}[self.holds]
        bar = "" if self.bar is None else f"{'≥' if self.bar_kind == 'min' else '≤'} {self.bar:g}"
        return (
            f"{self.benchmark:22} {self.store:10} {self.value:9.4g} {self.unit:13} against"
            f" {self.reference:9.4g}  ratio {self.ratio:6.3g}"
            f" [{self.spread[0]:.3g} … {self.spread[1]:.3g}]  {bar:7} {verdict}"
        )


def row(
    benchmark: str,
    store: str,
    values: Sequence[float],
    references: Sequence[float],
    *,
    unit: str,
    reference_is: str,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row of rounds that were measured in pairs; `at_least` or `at_most` is the bar of the ratio."""
    ratios = [ours / theirs for ours, theirs in zip(values, references, strict=True)]
    ratio = statistics.median(ratios)
    bar = at_least if at_most is None else at_most
    holds = None if bar is None else (ratio <= bar if at_most is not None else ratio >= bar)
    return Row(
        benchmark,
        store,
        unit,
        statistics.median(values),
        statistics.median(references),
        ratio,
        bar,
        "max" if at_most is not None else "min",
        holds,
        len(ratios),
        (min(ratios), max(ratios)),
        tuple(values),
        tuple(references),
        reference_is,
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(each) for each in value] if isinstance(value, tuple) else value
