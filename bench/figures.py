"""Statistics of a few measured values."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and range of the values of several rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the 1st to 99th percentile of at least two values, interpolated between neighbours."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
