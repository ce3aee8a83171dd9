"""The kinds of loads of the comparison, how each is run and measured."""

import time
from pathlib import Path

import msgspec

from bench.cluster import At, ClusterTarget
from bench.compare.generators import Operation, gateway_request, kvstore_request, run_h2load, run_wrk, write_requests
from bench.compare.model import StoreFigures
from bench.compare.pysyncobj import PySyncObjMembers, SetLoad
from bench.compare.stores import VALUE_BYTES, ComparedStore, EtcdMembers
from bench.errors import BenchError
from bench.figures import percentile
from bench.load.options import LoadOptions, Mix
from bench.load.process import run_load
from bench.processes import usage

KEYS = 10_000
WARM_UP_S = 1


class WrkLoad(msgspec.Struct, frozen=True):
    """A closed loop over HTTP, run by wrk."""

    operation: Operation
    connections: int = 64
    at: At = "leader"
    value_bytes: int = VALUE_BYTES
    keys: int = KEYS


class GrpcLoad(msgspec.Struct, frozen=True):
    """A closed loop on one key, run by h2load: `clients` connections with `streams` calls in flight each."""

    operation: Operation
    clients: int = 16
    streams: int = 16
    value_bytes: int = VALUE_BYTES


class InProcessLoad(msgspec.Struct, frozen=True):
    """Set operations in the process of the leader, for PySyncObj."""

    outstanding: int = 256
    value_bytes: int = VALUE_BYTES


class OpenLoad(msgspec.Struct, frozen=True):
    """PUTs in an open loop by the generator of `bench.load`, at a `share` of the throughput that a closed loop of
    `closed_connections` reaches just before."""

    share: float = 0.5
    closed_connections: int = 64
    connections: int = 256
    value_bytes: int = VALUE_BYTES


AnyLoad = WrkLoad | GrpcLoad | InProcessLoad | OpenLoad


class _GeneratorFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a generator. `operations` includes a warm-up that the same process runs."""

    operations: float
    per_second: float
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None


async def fill(store: ComparedStore, load: WrkLoad, directory: Path) -> None:
    """Put all keys of a load with wrk. Raises BenchError when some are not written."""
    seconds = 1
    put = msgspec.structs.replace(load, operation="put", at="leader", connections=64)
    while (made := await _wrk(store, put, directory, seconds)).operations < load.keys + put.connections:
        if made.operations <= 0 or seconds >= 600:
            raise BenchError(f"{load.keys} keys could not be written in {seconds} s: see the logs of the members")
        seconds = 1 + int(1.5 * seconds * (load.keys + put.connections) / made.operations)


async def measure(store: ComparedStore, load: AnyLoad, directory: Path, seconds: int) -> StoreFigures:
    """Run a load of `seconds` after a warm-up, and measure its cost for the members. Raises BenchError."""
    rate: float | None = None
    if isinstance(load, WrkLoad):
        await _wrk(store, load, directory, WARM_UP_S)
    elif isinstance(load, OpenLoad):
        closed = await _own_generator(store, load, load.closed_connections, None, seconds)
        rate = closed.per_second * load.share
    began, used_before, fsyncs_before = time.perf_counter(), usage(store.process_ids), await store.fsyncs()
    made = await _run(store, load, directory, seconds, rate)
    used, fsyncs, elapsed_s = usage(store.process_ids), await store.fsyncs(), time.perf_counter() - began
    operations = max(1.0, made.operations)
    leader_fsyncs = fsyncs.leader - fsyncs_before.leader
    writes = isinstance(load, InProcessLoad | OpenLoad) or load.operation == "put"
    return StoreFigures(
        per_second=made.per_second,
        bytes_per_second=made.per_second * load.value_bytes,
        errors=made.errors,
        p50_ms=made.p50_ms,
        p99_ms=made.p99_ms,
        p999_ms=made.p999_ms,
        cpu_us=1e6 * (used.cpu_s - used_before.cpu_s) / operations,
        fsyncs_per_second=(fsyncs.all - fsyncs_before.all) / elapsed_s,
        batch=operations / leader_fsyncs if writes and leader_fsyncs else None,
        resident_mib=used.resident_bytes / 2**20,
    )


async def _run(
    store: ComparedStore, load: AnyLoad, directory: Path, seconds: int, rate: float | None
) -> _GeneratorFigures:
    match load:
        case WrkLoad():
            return await _wrk(store, load, directory, seconds)
        case GrpcLoad(operation, clients, streams, value_bytes):
            size = {"clients": clients, "streams": streams, "value_bytes": value_bytes}
            calls = await run_h2load(directory, store.leader, operation, **size, seconds=seconds)
            return _GeneratorFigures(operations=calls.calls, per_second=calls.per_second, errors=calls.errors)
        case InProcessLoad():
            return await _in_process(store, load, seconds)
        case OpenLoad():
            return await _own_generator(store, load, load.connections, rate, seconds)


async def _wrk(store: ComparedStore, load: WrkLoad, directory: Path, seconds: int) -> _GeneratorFigures:
    make = gateway_request if isinstance(store, EtcdMembers) else kvstore_request
    value = b"v" * load.value_bytes
    file = directory / "requests"
    write_requests(file, (make(load.operation, b"key-%05d" % number, value) for number in range(load.keys)))
    urls = ClusterTarget([store.leader, *store.followers], store.leader).at(load.at)
    shares = {url: len(range(number, load.connections, len(urls))) for number, url in enumerate(urls)}
    result = await run_wrk(file, shares, seconds)
    return _GeneratorFigures(
        operations=result.requests,
        per_second=result.requests / result.seconds,
        errors=result.errors,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        p999_ms=result.p999_ms,
    )


async def _in_process(store: ComparedStore, load: InProcessLoad, seconds: int) -> _GeneratorFigures:
    if not isinstance(store, PySyncObjMembers):
        raise TypeError(f"{store} has no load in its own process")
    result = await store.load(SetLoad(WARM_UP_S, seconds, load.outstanding, KEYS, load.value_bytes))
    per_second = result.sets / seconds
    return _GeneratorFigures(
        operations=per_second * (WARM_UP_S + seconds),  # CPU time includes the warm-up
        per_second=per_second,
        errors=result.failed,
        p50_ms=percentile(result.latencies_ms, 50),
        p99_ms=percentile(result.latencies_ms, 99),
    )


async def _own_generator(
    store: ComparedStore, load: OpenLoad, connections: int, rate: float | None, seconds: int
) -> _GeneratorFigures:
    mix = Mix(value_bytes=load.value_bytes, keys=KEYS)
    result = await run_load(
        LoadOptions(
            mix=mix, urls=[store.leader], connections=connections, rate=rate, warm_up_s=WARM_UP_S, seconds=seconds
        )
    )
    return _GeneratorFigures(
        operations=sum(result.statuses.values()),
        per_second=result.per_second,
        errors=result.errors,
        p50_ms=result.all.p50_ms,
        p99_ms=result.all.p99_ms,
        p999_ms=result.all.p999_ms,
    )
