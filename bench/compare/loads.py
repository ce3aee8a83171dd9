"""The loads of the comparison, and how each is made."""

import time
from pathlib import Path

import msgspec

from bench.compare import h2load
from bench.compare.found import Figures
from bench.errors import BenchError
from bench.figures import percentile
from bench.load import run as loading
from bench.load.order import Mix
from bench.load.run import Ask
from bench.load.target import At, Target
from bench.peers.pysyncobj import Order, PySyncObj
from bench.processes import usage
from bench.stores import VALUE_BYTES, Etcd, Store
from bench.wrk import Operation, find_wrk
from bench.wrk import run as run_wrk

KEYS = 10_000
WARM_UP_S = 1


class Wrk(msgspec.Struct, frozen=True):
    """A closed loop by wrk, over HTTP."""

    operation: Operation
    connections: int = 64
    at: At = "leader"
    value_bytes: int = VALUE_BYTES
    keys: int = KEYS


class Grpc(msgspec.Struct, frozen=True):
    """A closed loop by h2load on one key: `clients` connections with `streams` calls under way each."""

    operation: Operation
    clients: int = 16
    streams: int = 16
    value_bytes: int = VALUE_BYTES


class InProcess(msgspec.Struct, frozen=True):
    """Sets in the process of the leader itself, for PySyncObj."""

    outstanding: int = 256
    value_bytes: int = VALUE_BYTES


class Open(msgspec.Struct, frozen=True):
    """PUTs in an open loop, by our own generator, at a `share` of what a closed loop of `peak_connections` has just
    reached on the same store."""

    share: float = 0.5
    peak_connections: int = 64
    connections: int = 256
    value_bytes: int = VALUE_BYTES


Load = Wrk | Grpc | InProcess | Open


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a generator says. `operations`: all that it had done, also in a warm-up that cannot be told apart."""

    operations: float
    per_second: float
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None


async def fill(store: Store, load: Wrk) -> None:
    """Put all keys of a load. Raises BenchError when not all of them are taken."""
    seconds = 1
    put = msgspec.structs.replace(load, operation="put", at="leader", connections=64)
    while (made := await _wrk(store, put, seconds)).operations < load.keys + put.connections:
        if made.operations <= 0 or seconds >= 600:
            raise BenchError(f"{load.keys} keys could not be written in {seconds} s: see the logs of the members")
        seconds = 1 + int(1.5 * seconds * (load.keys + put.connections) / made.operations)


async def measure(store: Store, load: Load, directory: Path, seconds: int) -> Figures:
    """Make a load of so many seconds, after a warm-up, and look at what it costs the members. Raises BenchError."""
    if isinstance(load, Wrk):
        await _wrk(store, load, WARM_UP_S)
    rate = await _peak(store, load, seconds) * load.share if isinstance(load, Open) else 0.0
    began, before, counted = time.perf_counter(), usage(store.process_ids), await store.counters()
    made = await _make(store, load, directory, seconds, rate)
    after, counters, elapsed_s = usage(store.process_ids), await store.counters(), time.perf_counter() - began
    operations = max(1.0, made.operations)
    leader_fsyncs = counters.leader_fsyncs - counted.leader_fsyncs
    writes = isinstance(load, InProcess | Open) or load.operation == "put"
    return Figures(
        per_second=made.per_second,
        bytes_per_second=made.per_second * load.value_bytes,
        errors=made.errors,
        p50_ms=made.p50_ms,
        p99_ms=made.p99_ms,
        p999_ms=made.p999_ms,
        asked_per_second=rate or None,
        cpu_us=1e6 * (after.cpu_s - before.cpu_s) / operations,
        fsyncs_per_second=(counters.fsyncs - counted.fsyncs) / elapsed_s,
        batch=operations / leader_fsyncs if writes and leader_fsyncs else None,
        resident_mib=after.resident_bytes / 2**20,
    )


async def _make(store: Store, load: Load, directory: Path, seconds: int, rate: float) -> _Made:
    match load:
        case Wrk():
            return await _wrk(store, load, seconds)
        case Grpc(operation, clients, streams, value_bytes):
            found = await h2load.run(
                *(h2load.find_h2load(), directory, store.leader, operation),
                clients=clients,
                streams=streams,
                value_bytes=value_bytes,
                seconds=seconds,
            )
            return _Made(operations=found.calls, per_second=found.per_second, errors=found.errors)
        case InProcess():
            return await _in_process(store, load, seconds)
        case Open():
            return await _open(store, load, load.connections, rate, seconds)


async def _wrk(store: Store, load: Wrk, seconds: int) -> _Made:
    urls = Target([store.leader, *store.followers], store.leader).at(load.at)
    found = await run_wrk(
        find_wrk(),
        loading.dealt(load.connections, urls),
        "etcd" if isinstance(store, Etcd) else "kvstore",
        load.operation,
        keys=load.keys,
        value_bytes=load.value_bytes,
        seconds=seconds,
    )
    return _Made(
        operations=found.requests,
        per_second=found.per_second,
        errors=found.errors,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        p999_ms=found.p999_ms,
    )


async def _in_process(store: Store, load: InProcess, seconds: int) -> _Made:
    if not isinstance(store, PySyncObj):
        raise TypeError(f"{store} takes its load from clients")
    order = Order(WARM_UP_S, seconds, load.outstanding, KEYS, load.value_bytes)
    done = await store.load(order)
    per_second = done.operations / done.seconds
    return _Made(
        operations=per_second * (WARM_UP_S + seconds),  # the warm-up is in the CPU time, too
        per_second=per_second,
        errors=done.failed,
        p50_ms=percentile(done.latencies_ms, 50),
        p99_ms=percentile(done.latencies_ms, 99),
    )


async def _peak(store: Store, load: Open, seconds: int) -> float:
    """Requests a second that a closed loop reaches."""
    return (await _open(store, load, load.peak_connections, None, seconds)).per_second


async def _open(store: Store, load: Open, connections: int, rate: float | None, seconds: int) -> _Made:
    ask = Ask(
        mix=Mix(value_bytes=load.value_bytes, keys=KEYS),
        urls=[store.leader],
        connections=connections,
        rate=rate,
        warm_up_s=WARM_UP_S,
        seconds=seconds,
        processes=loading.DEFAULT_PROCESSES,
    )
    found = await loading.run(ask)
    return _Made(
        operations=sum(found.statuses.values()),
        per_second=found.per_second,
        errors=found.errors,
        p50_ms=found.all.p50_ms,
        p99_ms=found.all.p99_ms,
        p999_ms=found.all.p999_ms,
    )
