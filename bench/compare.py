"""This store against etcd's HTTP gateway: the same load, the same machine, one after the other."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from bench.figures import Spread, spread
from bench.processes import usage
from bench.stores import Etcd, Kvstore, Store
from bench.wrk import Operation, run

KEYS = 10_000
OURS, THEIRS = "kvstore", "etcd"
OPERATIONS: tuple[Operation, ...] = ("put", "get")
PUT_RATIO_LIMIT = 1.5

_WARM_UP_S = 1


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one store. CPU and memory are of all members together, not of the load."""

    store: str
    operation: Operation
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU microseconds for an operation."""
    resident_mib: float
    errors: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements; those of a store and operation stand in the order of the rounds."""

    connections: int
    seconds: int
    rounds: int
    measurements: list[Measurement]

    def of(self, store: str, operation: Operation) -> list[Measurement]:
        """A measurement for each round."""
        return [one for one in self.measurements if (one.store, one.operation) == (store, operation)]

    def ratios(self, operation: Operation) -> list[float]:
        """For each round, our operations a second over theirs."""
        pairs = zip(self.of(OURS, operation), self.of(THEIRS, operation), strict=True)
        return [ours.per_second / theirs.per_second for ours, theirs in pairs]

    def ratio(self, operation: Operation) -> Spread:
        """The ratio over all rounds: each is of two loads that followed each other, so the median is robust."""
        return spread(self.ratios(operation))

    @property
    def within_limits(self) -> bool:
        """True when puts are as much faster as promised."""
        return self.ratio("put").median >= PUT_RATIO_LIMIT


async def measure(
    directory: Path,
    *,
    wrk: str,
    etcd: Path,
    rounds: int,
    seconds: int,
    connections: int,
    progress: Callable[[Measurement], None],
) -> Comparison:
    """Both stores in turn, each with new data in each round. Raises BenchError or ClusterError."""
    stores: Mapping[str, Callable[[Path], Store]] = {OURS: Kvstore, THEIRS: partial(Etcd, etcd)}
    measurements: list[Measurement] = []
    for number in range(1, rounds + 1):
        for name, make in stores.items():
            store = make(directory / f"{name}-{number}")
            try:
                url = await store.start()
                load = partial(_load, wrk, url, name, store, connections=connections)
                await load("put", keys=KEYS, seconds=_WARM_UP_S)
                put = await load("put", keys=KEYS, seconds=seconds)
                # A slow store may not have got round: what is read must be there.
                written = min(KEYS, int(put.per_second * seconds) - connections)
                get = await load("get", keys=max(1, written), seconds=seconds)
            finally:
                await store.stop()
            for measurement in (put, get):
                measurements.append(measurement)
                progress(measurement)
    return Comparison(connections=connections, seconds=seconds, rounds=rounds, measurements=measurements)


async def _load(
    wrk: str, url: str, name: str, store: Store, operation: Operation, *, keys: int, connections: int, seconds: int
) -> Measurement:
    before = usage(store.process_ids)
    load = await run(wrk, url, name, operation, keys=keys, connections=connections, seconds=seconds)
    after = usage(store.process_ids)
    return Measurement(
        store=name,
        operation=operation,
        per_second=load.per_second,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        cpu_us=1e6 * (after.cpu_s - before.cpu_s) / max(1, load.requests),
        resident_mib=after.resident_bytes / 2**20,
        errors=load.errors,
    )
