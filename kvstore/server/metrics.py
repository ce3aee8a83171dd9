"""The Prometheus metrics of a replica.

Distributions are recorded as they happen (`observe_*`). Counters that the replica keeps for itself are read at each
scrape, as a `CounterSnapshot`. Each `Metrics` has its own registry, so one process can have several.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from operator import add

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
REQUEST_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
_FSYNC_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class CounterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a replica at one moment, since the start of its process unless stated otherwise."""

    messages: dict[tuple[str, str], int]
    """Protocol messages by kind and direction: `("Accept", "sent")`, `("Accepted", "received")`."""

    reads: dict[str, int]
    """Answered reads by method: lease, read_index, quorum, stale."""

    chosen: int
    """Length of the chosen prefix of the log, restarts included."""

    applied: int
    """Length of the applied prefix of the log, restarts included."""

    leader_changes: int
    """Changes of the known leader."""

    is_leader: bool
    data_bytes: int
    """Bytes of the current keys and values, as `quota_bytes` counts them."""

    queues: dict[str, int]
    """Length of each queue, in entries or bytes."""

    dropped_frames: int
    """Messages that were dropped because the peer was not connected, its queue was full, or they were too long."""

    dropped_log_lines: int
    """Lines for standard error that were not written: nobody read them in time, or the disk of the log is full."""


class Metrics:
    """The metrics of one replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._batches = Histogram(
            "kvstore_batch_commands",
            "Commands in each slot that this replica applied",
            buckets=_BATCH_BUCKETS,
            registry=self._registry,
        )
        self._fsyncs = Histogram(
            "kvstore_fsync_seconds",
            "Time that a transaction took to become durable",
            buckets=_FSYNC_BUCKETS_S,
            registry=self._registry,
        )
        self.http_in_flight = Gauge(
            "kvstore_http_requests_in_flight", "Key requests in progress", registry=self._registry
        )
        self._answers: dict[tuple[str, str, int], _Answers] = {}
        self._registry.register(_RequestCollector(self._answers))
        ProcessCollector(registry=self._registry)

    def observe_batch(self, commands: int) -> None:
        """Record an applied slot of `commands` commands."""
        self._batches.observe(commands)

    def observe_fsync(self, seconds: float) -> None:
        """Record the time that a transaction took to become durable."""
        self._fsyncs.observe(seconds)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record an answered HTTP request. `route` must have few values; unknown methods are counted as `other`."""
        answers = self._answers.get((method, route, status))
        if answers is None:
            name = method if method in _METHODS else "other"
            answers = self._answers.setdefault((name, route, status), _Answers())
        answers.seconds += seconds
        answers.counts[bisect_left(REQUEST_BUCKETS_S, seconds)] += 1

    def answers(self) -> dict[str, list[int]]:
        """Return, by method, the number of requests in each of REQUEST_BUCKETS_S and above the last one."""
        found: dict[str, list[int]] = {}
        for (method, _, _), answers in self._answers.items():
            before = found.get(method)
            found[method] = list(map(add, before, answers.counts)) if before else list(answers.counts)
        return found

    def watch(self, snapshot: Callable[[], CounterSnapshot]) -> None:
        """Call `snapshot` at each scrape. Call this method once."""
        self._registry.register(_SnapshotCollector(snapshot))

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format, media type `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Answers:
    """Latencies of the requests with one method, route and status.

    The library's Histogram would take 1.3 µs of the 8 µs of a GET, for its lock and its loop over the buckets.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(REQUEST_BUCKETS_S) + 1)
        self.seconds = 0.0


class _RequestCollector(Collector):
    def __init__(self, answers: dict[tuple[str, str, int], _Answers]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "kvstore_http_requests", "HTTP requests answered", labels=["method", "route", "status"]
        )
        by_route: dict[tuple[str, str], list[_Answers]] = {}
        for (method, route, status), answers in self._answers.items():
            requests.add_metric([method, route, str(status)], sum(answers.counts))
            by_route.setdefault((method, route), []).append(answers)
        yield requests
        latencies = HistogramMetricFamily(
            "kvstore_http_request_seconds",
            "Time from the end of a request's headers to its answer",
            labels=["method", "route"],
        )
        bounds = [*map(str, REQUEST_BUCKETS_S), "+Inf"]
        for labels, parts in by_route.items():
            counts = accumulate(map(sum, zip(*(part.counts for part in parts), strict=True)))
            seconds = sum(part.seconds for part in parts)
            latencies.add_metric(labels, list(zip(bounds, counts, strict=True)), seconds)
        yield latencies


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Callable[[], CounterSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        counters = self._snapshot()
        messages = CounterMetricFamily(
            "kvstore_messages", "Protocol messages by kind and direction", labels=["kind", "direction"]
        )
        for (kind, direction), count in counters.messages.items():
            messages.add_metric([kind, direction], count)
        yield messages
        reads = CounterMetricFamily(
            "kvstore_reads", "Answered reads by the method that made them current", labels=["method"]
        )
        for method, count in counters.reads.items():
            reads.add_metric([method], count)
        yield reads
        yield CounterMetricFamily(
            "kvstore_link_dropped_messages",
            "Messages that were dropped instead of sent",
            value=counters.dropped_frames,
        )
        yield CounterMetricFamily(
            "kvstore_log_dropped_lines",
            "Lines for standard error that were dropped: nobody read them in time, or the disk of the log is full",
            value=counters.dropped_log_lines,
        )
        yield CounterMetricFamily(
            "kvstore_chosen_slots", "Length of the chosen prefix of the log", value=counters.chosen
        )
        yield CounterMetricFamily(
            "kvstore_applied_slots", "Length of the applied prefix of the log", value=counters.applied
        )
        yield CounterMetricFamily(
            "kvstore_leader_changes", "Changes of the known leader", value=counters.leader_changes
        )
        yield GaugeMetricFamily("kvstore_is_leader", "1 while this replica is the leader", value=counters.is_leader)
        yield GaugeMetricFamily(
            "kvstore_data_bytes",
            "Bytes of the current keys and values, as quota_bytes counts them",
            value=counters.data_bytes,
        )
        queues = GaugeMetricFamily("kvstore_queue_depth", "Length of each queue, in entries or bytes", labels=["queue"])
        for name, depth in counters.queues.items():
            queues.add_metric([name], depth)
        yield queues
