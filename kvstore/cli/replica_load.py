"""The load of a replica between two samples of its metrics. Pure."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_CLIENT_ROUTES = frozenset({"/kv/", "/txn", "/leases"})
"""Routes that count as load. The latency of `/locks/` and `/watch` is chosen by the client, so they do not count."""
_READ_METHODS = frozenset({"GET", "HEAD"})
MS = 1000


class Histogram(msgspec.Struct):
    """Cumulative counts of durations, by upper bound in seconds, summed over label sets."""

    counts: dict[float, float] = {}

    def add(self, bucket: Sample) -> None:
        """Add the count of a bucket."""
        bound = float(bucket.labels["le"])
        self.counts[bound] = self.counts.get(bound, 0.0) + bucket.value

    def since(self, before: Self) -> "Histogram":
        """Return the histogram of the durations that were counted since `before`."""
        bounds = self.counts | before.counts
        return Histogram({bound: self.counts.get(bound, 0.0) - before.counts.get(bound, 0.0) for bound in bounds})

    @property
    def count(self) -> float:
        """Number of durations."""
        return self.counts.get(float("inf"), 0.0)

    def quantile_ms(self, share: float) -> float | None:
        """Return the quantile `share` (0 to 1) in milliseconds, interpolated within its bucket; None without counts."""
        rank = share * self.count
        if not rank:
            return None
        bounds = [(0.0, 0.0), *sorted(self.counts.items())]
        for (lower, fewer), (upper, more) in pairwise(bounds):
            if more >= rank:
                inside = 0.0 if upper == float("inf") else (upper - lower) * (rank - fewer) / (more - fewer)
                return MS * (lower + inside)
        raise ValueError("the bounds of a histogram end with infinity")


class MetricsSample(msgspec.Struct):
    """Metrics of a replica at the monotonic time `at`, in seconds. `reads` and `writes` are requests of clients."""

    at: float
    reads: Histogram
    writes: Histogram
    fsyncs: Histogram
    data_bytes: int | None = None
    memory_bytes: int | None = None


class ReplicaLoad(msgspec.Struct, frozen=True):
    """Load between two samples. A latency is None if there was no such request."""

    reads_per_s: float
    writes_per_s: float
    read_p50_ms: float | None
    read_p99_ms: float | None
    write_p50_ms: float | None
    write_p99_ms: float | None
    fsync_p99_ms: float | None


def parse_metrics(text: str, at: float) -> MetricsSample:
    """Return the sample in `text`, the answer to GET /metrics. Raises ValueError."""
    found = MetricsSample(at, Histogram({}), Histogram({}), Histogram({}))
    for sample in _samples(text):
        match sample.name:
            case "kvstore_http_request_seconds_bucket" if sample.labels["route"] in _CLIENT_ROUTES:
                (found.reads if sample.labels["method"] in _READ_METHODS else found.writes).add(sample)
            case "kvstore_fsync_seconds_bucket":
                found.fsyncs.add(sample)
            case "kvstore_data_bytes":
                found.data_bytes = int(sample.value)
            case "process_resident_memory_bytes":
                found.memory_bytes = int(sample.value)
    return found


def load_between(before: MetricsSample, after: MetricsSample) -> ReplicaLoad | None:
    """Return the load between two samples; None if the replica restarted in between."""
    reads, writes = after.reads.since(before.reads), after.writes.since(before.writes)
    fsyncs = after.fsyncs.since(before.fsyncs)
    elapsed_s = after.at - before.at
    if elapsed_s <= 0 or min(reads.count, writes.count, fsyncs.count) < 0:
        return None
    return ReplicaLoad(
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
