"""What the metrics of a replica say about its load: pure, from what they were at two moments."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_OF_CLIENTS = frozenset({"/kv/", "/txn", "/leases"})
"""Without `/locks/` and `/watch`, whose requests wait as long as they are asked to."""
_READS = frozenset({"GET", "HEAD"})
MS = 1000


class Histogram(msgspec.Struct):
    """Counts below each bound, in seconds; those of several sorts are added."""

    below: dict[float, float] = {}

    def add(self, sample: Sample) -> None:
        """Take over a bucket."""
        bound = float(sample.labels["le"])
        self.below[bound] = self.below.get(bound, 0.0) + sample.value

    def since(self, before: Self) -> "Histogram":
        """What came after `before`."""
        bounds = self.below | before.below
        return Histogram({bound: self.below.get(bound, 0.0) - before.below.get(bound, 0.0) for bound in bounds})

    @property
    def count(self) -> float:
        """All of them."""
        return self.below.get(float("inf"), 0.0)

    def quantile_ms(self, share: float) -> float | None:
        """Below it are so many of all, 0 to 1; between two bounds they are taken to lie evenly. None of nothing."""
        rank = share * self.count
        if not rank:
            return None
        bounds = [(0.0, 0.0), *sorted(self.below.items())]
        for (lower, fewer), (upper, more) in pairwise(bounds):
            if more >= rank:
                inside = 0.0 if upper == float("inf") else (upper - lower) * (rank - fewer) / (more - fewer)
                return MS * (lower + inside)
        raise ValueError("the bounds of a histogram end with infinity")


class Counters(msgspec.Struct):
    """What a replica counted up to the second `at` of a monotonic clock; requests are those of clients."""

    at: float
    reads: Histogram
    writes: Histogram
    fsyncs: Histogram
    data_bytes: int | None = None
    memory_bytes: int | None = None


class Load(msgspec.Struct, frozen=True):
    """Between two moments. Times are in ms, and None where nothing was timed."""

    reads_per_s: float
    writes_per_s: float
    read_p50_ms: float | None
    read_p99_ms: float | None
    write_p50_ms: float | None
    write_p99_ms: float | None
    fsync_p99_ms: float | None


def counters_of(text: str, at: float) -> Counters:
    """Out of what GET /metrics answered. Raises ValueError."""
    found = Counters(at, Histogram({}), Histogram({}), Histogram({}))
    for sample in _samples(text):
        match sample.name:
            case "kvstore_http_request_seconds_bucket" if sample.labels["route"] in _OF_CLIENTS:
                (found.reads if sample.labels["method"] in _READS else found.writes).add(sample)
            case "kvstore_fsync_seconds_bucket":
                found.fsyncs.add(sample)
            case "kvstore_data_bytes":
                found.data_bytes = int(sample.value)
            case "process_resident_memory_bytes":
                found.memory_bytes = int(sample.value)
    return found


def load_between(before: Counters, after: Counters) -> Load | None:
    """None when the replica was started anew in between."""
    reads, writes = after.reads.since(before.reads), after.writes.since(before.writes)
    fsyncs = after.fsyncs.since(before.fsyncs)
    elapsed_s = after.at - before.at
    if elapsed_s <= 0 or min(reads.count, writes.count, fsyncs.count) < 0:
        return None
    return Load(
        reads.count / elapsed_s,
        writes.count / elapsed_s,
        reads.quantile_ms(0.5),
        reads.quantile_ms(0.99),
        writes.quantile_ms(0.5),
        writes.quantile_ms(0.99),
        fsyncs.quantile_ms(0.99),
    )


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        yield from family.samples
