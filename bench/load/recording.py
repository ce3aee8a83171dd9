"""What the generator writes down about its requests: as little as possible while it runs."""

import time
from array import array
from collections import Counter
from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from bench.load.order import Result

BIN_NS = 10_000_000
"""Answers are counted in bins of this length: a stall is as long as its empty bins."""
MOST_US = 3_600_000_000
DIGITS = 3
"""Significant digits of a latency."""


def new_histogram() -> HdrHistogram:
    """For microseconds, up to an hour."""
    return HdrHistogram(1, MOST_US, DIGITS)


def encoded(latencies_us: Iterable[int]) -> str:
    """A histogram of these, as HdrHistogram encodes it."""
    histogram = new_histogram()
    for value, count in Counter(latencies_us).items():
        histogram.record_value(min(max(value, 1), MOST_US), count)
    return str(histogram.encode().decode())


class Recording:
    """Instants are monotonic nanoseconds. What was due before `measured_ns` is warm-up."""

    def __init__(self, start_ns: int, measured_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self.measured_ns = measured_ns
        self.end_ns = end_ns
        self._gets_us = array("I")
        self._puts_us = array("I")
        self._bins = [0] * -(-(end_ns - start_ns) // BIN_NS)
        self._statuses: Counter[int] = Counter()
        self._cpu_s = 0.0
        self.lost = 0
        self.unsent = 0

    def begin_measuring(self) -> None:
        """The warm-up is over."""
        self._cpu_s = time.process_time()

    def answered(self, operation: int, status: int, since_ns: int, now_ns: int) -> None:
        """A request that was due at `since_ns` has its answer."""
        self._statuses[status] += 1
        if now_ns < self.end_ns:
            self._bins[(now_ns - self.start_ns) // BIN_NS] += 1
        if since_ns >= self.measured_ns:
            (self._gets_us if operation < 0 else self._puts_us).append((now_ns - since_ns) // 1000)

    def never_sent(self, operation: int, due_ns: int) -> None:
        """A request that was due had no connection until the end."""
        self.unsent += 1
        if due_ns >= self.measured_ns:
            (self._gets_us if operation < 0 else self._puts_us).append((self.end_ns - due_ns) // 1000)

    def count(self) -> int:
        """Answers so far."""
        return self._statuses.total()

    def result(self) -> Result:
        """All of it, once the measured time is over."""
        cpu_s = time.process_time() - self._cpu_s
        return Result(
            get=encoded(self._gets_us),
            put=encoded(self._puts_us),
            bins=self._bins,
            statuses=dict(self._statuses),
            lost=self.lost,
            unsent=self.unsent,
            cpu_s=cpu_s,
        )
