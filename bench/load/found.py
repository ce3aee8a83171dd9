"""What a load showed: the results of all processes together."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import msgspec

from bench.errors import BenchError
from bench.load.order import Mix, Result
from bench.load.recording import BIN_NS, new_histogram

BUSY_LIMIT = 0.85
"""A process of the generator that is busy for more than this share of the time may be what limits the load."""

KEPT_UP = 0.95
"""In an open loop a store that answers a smaller share of what is asked for is saturated."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of requests, in milliseconds. `histogram`: of microseconds, as HdrHistogram encodes it."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    most_ms: float
    histogram: str


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what came of it in the measured time."""

    mix: Mix
    connections: int
    processes: int
    rate: float | None
    """Requests a second that were asked for; None in a closed loop."""
    seconds: float
    warm_up_s: float
    per_second: float
    """Answers a second."""
    all: Latency
    get: Latency | None
    put: Latency | None
    statuses: dict[int, int]
    lost: int
    unsent: int
    stall_ms: float
    """The longest time without an answer, in steps of 10 ms."""
    bins: list[int]
    """Answers in each hundredth of a second."""
    busiest: float
    """The share of the time for which the busiest process of the generator had the processor."""
    cost_us: float
    """Its CPU time for a request."""

    @property
    def errors(self) -> int:
        """Requests without an answer, and answers that are not 2xx."""
        return self.lost + sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    @property
    def saturated(self) -> bool:
        """True when fewer requests were answered than were due: latencies then say how long the run was, no more."""
        return self.rate is not None and self.per_second < KEPT_UP * self.rate

    @property
    def limited_by_generator(self) -> bool:
        """True when the figures may be those of the generator."""
        return self.busiest > BUSY_LIMIT


def merged(
    results: Sequence[Result],
    mix: Mix,
    *,
    connections: int,
    rate: float | None,
    seconds: float,
    warm_up_s: float,
) -> Load:
    """One load out of what its processes found. Raises BenchError when nothing was answered."""
    bins = [sum(each) for each in zip(*(result.bins for result in results), strict=True)]
    bins = bins[round(warm_up_s * 1e9 / BIN_NS) :]
    everything = latency([each for result in results for each in (result.get, result.put)])
    if everything is None or not any(bins):
        raise BenchError("no request was answered in the measured time: see the logs of the replicas, or take longer")
    statuses: Counter[int] = Counter()
    for result in results:
        statuses.update(result.statuses)
    answered = sum(bins)
    return Load(
        mix=mix,
        connections=connections,
        processes=len(results),
        rate=rate,
        seconds=seconds,
        warm_up_s=warm_up_s,
        per_second=answered / seconds,
        all=everything,
        get=latency([result.get for result in results]),
        put=latency([result.put for result in results]),
        statuses=dict(sorted(statuses.items())),
        lost=sum(result.lost for result in results),
        unsent=sum(result.unsent for result in results),
        stall_ms=longest_stall_ms(bins),
        bins=bins,
        busiest=max(result.cpu_s for result in results) / seconds,
        cost_us=1e6 * sum(result.cpu_s for result in results) / answered,
    )


def latency(histograms: Sequence[str]) -> Latency | None:
    """Encoded histograms as one; None when nothing is in them."""
    whole = new_histogram()
    for encoded in histograms:
        whole.decode_and_add(encoded)
    count = whole.get_total_count()
    if not count:
        return None

    def at(percent: float) -> float:
        return float(whole.get_value_at_percentile(percent)) / 1000

    return Latency(
        count=count,
        mean_ms=whole.get_mean_value() / 1000,
        p50_ms=at(50),
        p90_ms=at(90),
        p99_ms=at(99),
        p999_ms=at(99.9),
        most_ms=whole.get_max_value() / 1000,
        histogram=whole.encode().decode(),
    )


def longest_stall_ms(bins: Sequence[int]) -> float:
    """The longest run of bins without an answer."""
    runs = (sum(1 for _ in run) for empty, run in groupby(bins, key=lambda count: count == 0) if empty)
    return max(runs, default=0) * BIN_NS / 1e6


def per_second(bins: Sequence[int], bin_s: float) -> list[float]:
    """Answers a second, in longer bins; what is left over at the end is left out."""
    size = round(bin_s * 1e9 / BIN_NS)
    return [sum(bins[start : start + size]) / bin_s for start in range(0, len(bins) - size + 1, size)]
