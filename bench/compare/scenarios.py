"""What is compared: which loads on which stores, which figures of them, and what is promised of these."""

import msgspec

from bench.compare.found import Case, Row
from bench.compare.loads import Grpc, InProcess, Load, Open, Wrk

KVSTORE, FIVE, GROWN = "kvstore", "kvstore of five", "kvstore with 1,000,000 keys"
ETCD = "etcd"
PYSYNCOBJ, TUNED = "PySyncObj", "PySyncObj tuned"

PUT_1, PUT_64, PUT_256, GET_64 = "PUT 1", "PUT 64", "PUT 256", "GET 64"
PUT_FOLLOWER, GET_FOLLOWER = "PUT 64 at a follower", "GET 64 at a follower"
PUT_SPREAD, GET_SPREAD = "PUT 64 at all", "GET 64 at all"
PUT_10K, PUT_100K = "PUT 64, 10 KB", "PUT 64, 100 KB"
GRPC_PUT, GRPC_GET = "gRPC put 16x16", "gRPC range 16x16"
SET_256 = "set 256, in process"
PUT_OPEN = "PUT, open loop"
"""The number is that of connections, or of what is under way at once."""

LOADS: dict[str, Load] = {
    PUT_1: Wrk("put", connections=1),
    PUT_64: Wrk("put"),
    PUT_256: Wrk("put", connections=256),
    GET_64: Wrk("get"),
    PUT_FOLLOWER: Wrk("put", at="follower"),
    GET_FOLLOWER: Wrk("get", at="follower"),
    PUT_SPREAD: Wrk("put", at="all"),
    GET_SPREAD: Wrk("get", at="all"),
    PUT_10K: Wrk("put", value_bytes=10_000, keys=1000),
    PUT_100K: Wrk("put", value_bytes=100_000, keys=100),  # wrk holds the requests of all keys
    GRPC_PUT: Grpc("put"),
    GRPC_GET: Grpc("get"),
    SET_256: InProcess(),
    PUT_OPEN: Open(),
}


class Scenario(msgspec.Struct, frozen=True):
    """Stores that are measured in turn, each with its loads in this order; what is compared. `about`: what a reader
    must know to judge it."""

    name: str
    about: str
    stores: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]


def _row(title: str, figure: str, ours: tuple[str, str], theirs: tuple[str, str] | None, bar: float | None) -> Row:
    return msgspec.convert(
        {
            "title": title,
            "figure": figure,
            "ours": Case(*ours),
            "theirs": None if theirs is None else Case(*theirs),
            "bar": bar,
        },
        Row,
    )


SCENARIOS = (
    Scenario(
        "gateway",
        "Three members each, all connections to the leader, over HTTP. etcd's gateway is for clients without gRPC; it "
        "takes JSON, with keys and values in base64.",
        {KVSTORE: (PUT_64, GET_64, PUT_1), ETCD: (PUT_64, GET_64, PUT_1)},
        (
            _row("PUT/s 64, etcd gateway", "per_second", (KVSTORE, PUT_64), (ETCD, PUT_64), 5),
            _row("GET/s 64, etcd gateway", "per_second", (KVSTORE, GET_64), (ETCD, GET_64), 8),
            _row("PUT p50 1, etcd gateway", "p50_ms", (KVSTORE, PUT_1), (ETCD, PUT_1), 0.5),
            _row("PUT p99 64, etcd gateway", "p99_ms", (KVSTORE, PUT_64), (ETCD, PUT_64), 0.5),
        ),
    ),
    Scenario(
        "grpc",
        "etcd's own protocol, 16 connections with 16 calls under way each. h2load puts and reads one key only; ours "
        "are 10,000.",
        {KVSTORE: (PUT_256, GET_64), ETCD: (GRPC_PUT, GRPC_GET)},
        (
            _row("PUT/s 256, etcd gRPC", "per_second", (KVSTORE, PUT_256), (ETCD, GRPC_PUT), 1.5),
            _row("GET/s 64, etcd gRPC", "per_second", (KVSTORE, GET_64), (ETCD, GRPC_GET), 1.5),
        ),
    ),
    Scenario(
        "pysyncobj",
        "PySyncObj takes its load in the process of its leader, without a client, and nothing of it is durable: no "
        "fsync, term and vote in memory only. Tuned: larger batches, a shorter tick, no compaction.",
        {KVSTORE: (PUT_256,), PYSYNCOBJ: (SET_256,), TUNED: (SET_256,)},
        (
            _row("PUT/s 256, PySyncObj", "per_second", (KVSTORE, PUT_256), (PYSYNCOBJ, SET_256), None),
            _row("PUT/s 256, PySyncObj tuned", "per_second", (KVSTORE, PUT_256), (TUNED, SET_256), None),
        ),
    ),
    Scenario(
        "spread",
        "One cluster of three: the same load at the leader, at a follower, and dealt out to all replicas.",
        {KVSTORE: (PUT_64, PUT_FOLLOWER, PUT_SPREAD, GET_64, GET_FOLLOWER, GET_SPREAD)},
        (
            _row("PUT/s, follower to leader", "per_second", (KVSTORE, PUT_FOLLOWER), (KVSTORE, PUT_64), 0.6),
            _row("GET/s, follower to leader", "per_second", (KVSTORE, GET_FOLLOWER), (KVSTORE, GET_64), 0.6),
            _row("PUT/s 64, all to leader", "per_second", (KVSTORE, PUT_SPREAD), (KVSTORE, PUT_64), 0.9),
            _row("GET/s 64, all to leader", "per_second", (KVSTORE, GET_SPREAD), (KVSTORE, GET_64), 0.9),
        ),
    ),
    Scenario(
        "five",
        "Five replicas on the same cores as three.",
        {KVSTORE: (PUT_64,), FIVE: (PUT_64,)},
        (_row("PUT/s 64, five to three", "per_second", (FIVE, PUT_64), (KVSTORE, PUT_64), 0.7),),
    ),
    Scenario(
        "grown",
        "1,000,000 keys are there before the load, which writes and reads 10,000.",
        {KVSTORE: (PUT_64, GET_64), GROWN: (PUT_64, GET_64)},
        (
            _row("PUT/s 64, 1 M keys to none", "per_second", (GROWN, PUT_64), (KVSTORE, PUT_64), 0.9),
            _row("GET/s 64, 1 M keys to none", "per_second", (GROWN, GET_64), (KVSTORE, GET_64), 0.9),
        ),
    ),
    Scenario(
        "open",
        "Requests come at an even pace whether answers do or not: half of what 64 connections in a closed loop reached "
        "on the same cluster just before. Latencies count from when a request was due.",
        {KVSTORE: (PUT_OPEN,)},
        (
            _row("PUT p99, half the peak", "p99_ms", (KVSTORE, PUT_OPEN), None, 10),
            _row("PUT p99.9, half the peak", "p999_ms", (KVSTORE, PUT_OPEN), None, 30),
        ),
    ),
    Scenario(
        "values",
        "Large values at the leader; the gateway takes them in base64, what is counted is the value itself.",
        {KVSTORE: (PUT_10K, PUT_100K), ETCD: (PUT_10K, PUT_100K)},
        (
            _row("values of 10 KB, gateway", "bytes_per_second", (KVSTORE, PUT_10K), (ETCD, PUT_10K), 2),
            _row("values of 100 KB, gateway", "bytes_per_second", (KVSTORE, PUT_100K), (ETCD, PUT_100K), 2),
        ),
    ),
)
