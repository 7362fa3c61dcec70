"""What must hold of a figure, whether it did, and the results of a measurement for other programs."""

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
    """The median of ``values`` must be at least ``floor``, better ``goal``; with ``at_most`` no more than them."""

    what: str
    values: Sequence[float]
    floor: float
    goal: float | None = None
    at_most: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if not self._meets(self.floor):
            return "NOT MET"
        return "met" if self.goal is None or self._meets(self.goal) else "met, but not the goal"

    def __str__(self) -> str:
        spread = f" ({min(self.values):.3g}–{max(self.values):.3g})" if len(self.values) > 1 else ""
        wanted = f"{'≤' if self.at_most else '≥'} {self.floor:g}" + (f", goal {self.goal:g}" if self.goal else "")
        return f"{self.what}: {self.median:.3g}{spread}; must be {wanted}: {self.verdict}"

    def _meets(self, limit: float) -> bool:
        return self.median <= limit if self.at_most else self.median >= limit


def ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round: of what was measured one right after the other."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def conclude(name: str, figures: Mapping[str, Any], bounds: Sequence[Bound]) -> None:
    """Says what must hold and whether it did, and writes all of it to ``bench-NAME.json``."""
    for bound in bounds:
        print(bound)
    judged = [
        {
            "what": bound.what,
            "values": bound.values,
            "at_most": bound.at_most,
            "floor": bound.floor,
            "goal": bound.goal,
            "verdict": bound.verdict,
        }
        for bound in bounds
    ]
    path = Path(f"bench-{name}.json")
    path.write_text(json.dumps({"machine": machine(), "figures": figures, "bounds": judged}, indent=1))
    print(f"every sample: {path}")
