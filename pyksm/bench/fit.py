"""How a cost grows with size: the exponent of a power law, by least squares of the logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """``cost = factor * size ** exponent``. ``stderr`` of the exponent: None with two points."""

    exponent: float
    stderr: float | None
    factor: float
    points: int

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.3f}"
        return f"{self.exponent:.3f}{error}"


def power_law(sizes: Sequence[float], costs: Sequence[float]) -> Fit | None:
    """The fit; None where there are not two sizes with a cost above 0."""
    pairs = [(math.log(n), math.log(c)) for n, c in zip(sizes, costs, strict=True) if c > 0]
    count = len(pairs)
    if len({x for x, _ in pairs}) < 2:
        return None
    mean_x = sum(x for x, _ in pairs) / count
    mean_y = sum(y for _, y in pairs) / count
    around = sum((x - mean_x) ** 2 for x, _ in pairs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in pairs) / around
    start = mean_y - slope * mean_x
    stderr = None
    if count > 2:
        left = sum((y - start - slope * x) ** 2 for x, y in pairs)
        stderr = math.sqrt(left / (count - 2) / around)
    return Fit(slope, stderr, math.exp(start), count)
