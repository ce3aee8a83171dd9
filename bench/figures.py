"""Statistics of what was measured: pure."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """What several rounds gave."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which `percent` of at least two values lie, 1 to 99, interpolated between neighbours."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def histogram(values: Iterable[float], width: int) -> list[tuple[int, int]]:
    """The lower bound of each bucket of `width` from the lowest occupied one to the highest, and how many are in it."""
    counts = Counter(int(value // width) for value in values)
    return [(bucket * width, counts[bucket]) for bucket in range(min(counts), max(counts) + 1)]
