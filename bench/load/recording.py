"""The figures of a load: counters during the load, a summary at the end."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

import msgspec

from bench.errors import BenchError
from bench.load.options import LoadOptions

BIN_NS = 10_000_000
"""Length of the bins in which answers are counted; a stall is a run of empty bins."""

BUSY_LIMIT = 0.85
"""CPU share above which the generator may be the bottleneck."""
KEPT_UP = 0.95
"""Share of the requested rate below which a store is saturated."""


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one kind of requests, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """A load and its figures in the measured time."""

    options: LoadOptions
    per_second: float
    """Answers per second."""
    all: LatencySummary
    get: LatencySummary | None
    put: LatencySummary | None
    statuses: dict[int, int]
    """Number of answers by HTTP status, warm-up included."""
    lost: int
    """Requests whose connection broke, or without an answer within the grace period after the load."""
    unsent: int
    """Requests of an open loop that were due but found no free connection until the end. Their latency is their
    waiting time."""
    stall_ms: float
    """Longest time without an answer, in steps of 10 ms."""
    bins: list[int]
    """Number of answers in each 10 ms."""
    generator_cpu: float
    """CPU time of the generator divided by the measured time."""

    @property
    def errors(self) -> int:
        """Number of requests without an answer and of answers that are not 2xx."""
        return self.lost + sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    @property
    def saturated(self) -> bool:
        """Whether an open loop fell behind its rate; its latencies then grow with the length of the load."""
        rate = self.options.rate
        return rate is not None and self.per_second < KEPT_UP * rate


class Recording:
    """Counters of a load. Times are monotonic nanoseconds; requests due before `measured_ns` are warm-up."""

    def __init__(self, start_ns: int, measured_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self.measured_ns = measured_ns
        self.end_ns = end_ns
        self._latencies_us: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        """Number of PUTs and of GETs for each latency."""
        self._bins: Counter[int] = Counter()
        self._cpu_s = 0.0
        self.statuses: Counter[int] = Counter()
        self.lost = 0
        self.unsent = 0

    def begin_measuring(self) -> None:
        """Record the CPU time used before the measured time."""
        self._cpu_s = time.process_time()

    def answered(self, operation: int, status: int, since_ns: int, now_ns: int) -> None:
        """Count the answer to a request that was due at `since_ns`."""
        self.statuses[status] += 1
        if now_ns < self.end_ns:
            self._bins[(now_ns - self.start_ns) // BIN_NS] += 1
        if since_ns >= self.measured_ns:
            self._latencies_us[operation < 0][(now_ns - since_ns) // 1000] += 1

    def never_sent(self, operation: int, due_ns: int) -> None:
        """Count a request that was due and found no free connection until the end."""
        self.unsent += 1
        if due_ns >= self.measured_ns:
            self._latencies_us[operation < 0][(self.end_ns - due_ns) // 1000] += 1

    def take_latencies(self) -> LatencySummary | None:
        """Return the latencies since the last call. Another thread may call this method during the load."""
        taken, self._latencies_us = self._latencies_us, (Counter(), Counter())
        puts, gets = (
            Counter(dict(each)) for each in taken
        )  # dict() copies in one step, even while the other thread counts
        return summary(puts + gets)

    def result(self, options: LoadOptions) -> LoadResult:
        """Return the figures after the measured time. Raises BenchError if no answer arrived during that time."""
        puts, gets = self._latencies_us
        latencies = summary(puts + gets)
        first, end = ((instant - self.start_ns) // BIN_NS for instant in (self.measured_ns, self.end_ns))
        bins = [self._bins[number] for number in range(first, end)]
        if latencies is None or not any(bins):
            raise BenchError(
                "no request was answered in the measured time: see the logs of the replicas, or raise --seconds"
            )
        return LoadResult(
            options=options,
            per_second=sum(bins) / options.seconds,
            all=latencies,
            get=summary(gets),
            put=summary(puts),
            statuses=dict(sorted(self.statuses.items())),
            lost=self.lost,
            unsent=self.unsent,
            stall_ms=longest_stall_ms(bins),
            bins=bins,
            generator_cpu=(time.process_time() - self._cpu_s) / options.seconds,
        )


def summary(latencies_us: Mapping[int, int]) -> LatencySummary | None:
    """Summarise the number of requests for each latency; return None when there are none."""
    if not latencies_us:
        return None
    ordered = sorted(latencies_us)
    cumulative = list(accumulate(latencies_us[each] for each in ordered))
    count = cumulative[-1]
    p50_us, p90_us, p99_us, p999_us = (
        ordered[bisect_left(cumulative, share * count)] for share in (0.5, 0.9, 0.99, 0.999)
    )
    return LatencySummary(
        count=count,
        mean_ms=sum(each * number for each, number in latencies_us.items()) / count / 1000,
        p50_ms=p50_us / 1000,
        p90_ms=p90_us / 1000,
        p99_ms=p99_us / 1000,
        p999_ms=p999_us / 1000,
        max_ms=ordered[-1] / 1000,
    )


def longest_stall_ms(bins: Sequence[int]) -> float:
    """Return the length of the longest run of empty bins."""
    runs = (sum(1 for _ in run) for empty, run in groupby(bins, key=lambda count: count == 0) if empty)
    return max(runs, default=0) * BIN_NS / 1e6


def per_second(bins: Sequence[int], bin_s: float) -> list[float]:
    """Return answers per second in bins of `bin_s`, without an incomplete one at the end."""
    size = round(bin_s * 1e9 / BIN_NS)
    return [sum(bins[start : start + size]) / bin_s for start in range(0, len(bins) - size + 1, size)]
