"""Limits on the results of a benchmark, and the JSON file with the results and verdicts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measuring import machine


@dataclass(frozen=True)
class Bound:
    """The median of ``values`` must be at least ``limit``, better at least ``goal``; with ``at_most``, at most."""

    name: str
    values: Sequence[float]
    limit: float
    goal: float | None = None
    at_most: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if not self._meets(self.limit):
            return "NOT MET"
        return "met" if self.goal is None or self._meets(self.goal) else "met, goal not met"

    def __str__(self) -> str:
        spread = f" ({min(self.values):.3g}–{max(self.values):.3g})" if len(self.values) > 1 else ""
        wanted = f"{'≤' if self.at_most else '≥'} {self.limit:g}" + (f", goal {self.goal:g}" if self.goal else "")
        return f"{self.name}: {self.median:.3g}{spread}; must be {wanted}: {self.verdict}"

    def _meets(self, limit: float) -> bool:
        return self.median <= limit if self.at_most else self.median >= limit


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Returns, for each round, the ratio of the two values measured in it."""
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True)]


def conclude(name: str, figures: Mapping[str, Any], bounds: Sequence[Bound]) -> None:
    """Prints each limit with its verdict, and writes results and limits to ``bench-NAME.json``."""
    for bound in bounds:
        print(bound)
    verdicts = [
        {
            "what": bound.name,
            "values": bound.values,
            "at_most": bound.at_most,
            "limit": bound.limit,
            "goal": bound.goal,
            "verdict": bound.verdict,
        }
        for bound in bounds
    ]
    path = Path(f"bench-{name}.json")
    path.write_text(json.dumps({"machine": machine(), "figures": figures, "bounds": verdicts}, indent=1))
    print(f"all samples: {path}")
