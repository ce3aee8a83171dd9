"""The scenarios: loads on stores, and the promised figures."""

from bench.compare.loads import AnyLoad, GrpcLoad, InProcessLoad, OpenLoad, WrkLoad
from bench.compare.model import Case, ComparisonScenario, Figure, Row

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
"""Names of loads. The number is that of connections or of operations in flight."""

LOADS: dict[str, AnyLoad] = {
    PUT_1: WrkLoad("put", connections=1),
    PUT_64: WrkLoad("put"),
    PUT_256: WrkLoad("put", connections=256),
    GET_64: WrkLoad("get"),
    PUT_FOLLOWER: WrkLoad("put", at="follower"),
    GET_FOLLOWER: WrkLoad("get", at="follower"),
    PUT_SPREAD: WrkLoad("put", at="all"),
    GET_SPREAD: WrkLoad("get", at="all"),
    PUT_10K: WrkLoad("put", value_bytes=10_000, keys=1000),
    PUT_100K: WrkLoad("put", value_bytes=100_000, keys=100),  # wrk keeps all requests in memory
    GRPC_PUT: GrpcLoad("put"),
    GRPC_GET: GrpcLoad("get"),
    SET_256: InProcessLoad(),
    PUT_OPEN: OpenLoad(),
}


def _row(title: str, figure: Figure, ours: tuple[str, str], theirs: tuple[str, str] | None, bar: float | None) -> Row:
    return Row(title, figure, Case(*ours), None if theirs is None else Case(*theirs), bar)


SCENARIOS = (
    ComparisonScenario(
        "gateway",
        "Three members each, all connections to the leader, over HTTP. etcd's gateway serves clients without gRPC, in "
        "JSON with keys and values in base64.",
        {KVSTORE: (PUT_64, GET_64, PUT_1), ETCD: (PUT_64, GET_64, PUT_1)},
        (
            _row("PUT/s 64, etcd gateway", "per_second", (KVSTORE, PUT_64), (ETCD, PUT_64), 5),
            _row("GET/s 64, etcd gateway", "per_second", (KVSTORE, GET_64), (ETCD, GET_64), 8),
            _row("PUT p50 1, etcd gateway", "p50_ms", (KVSTORE, PUT_1), (ETCD, PUT_1), 0.5),
            _row("PUT p99 64, etcd gateway", "p99_ms", (KVSTORE, PUT_64), (ETCD, PUT_64), 0.5),
        ),
    ),
    ComparisonScenario(
        "grpc",
        "etcd's own protocol, 16 connections with 16 calls in flight each. h2load uses one key, the load on kvstore "
        "10,000.",
        {KVSTORE: (PUT_256, GET_64), ETCD: (GRPC_PUT, GRPC_GET)},
        (
            _row("PUT/s 256, etcd gRPC", "per_second", (KVSTORE, PUT_256), (ETCD, GRPC_PUT), 1.5),
            _row("GET/s 64, etcd gRPC", "per_second", (KVSTORE, GET_64), (ETCD, GRPC_GET), 1.5),
        ),
    ),
    ComparisonScenario(
        "pysyncobj",
        "The load on PySyncObj is made in the process of its leader, without a client, and nothing is durable: no "
        "fsync, term and vote in memory. Tuned: larger batches, a shorter tick, no compaction.",
        {KVSTORE: (PUT_256,), PYSYNCOBJ: (SET_256,), TUNED: (SET_256,)},
        (
            _row("PUT/s 256, PySyncObj", "per_second", (KVSTORE, PUT_256), (PYSYNCOBJ, SET_256), None),
            _row("PUT/s 256, PySyncObj tuned", "per_second", (KVSTORE, PUT_256), (TUNED, SET_256), None),
        ),
    ),
    ComparisonScenario(
        "spread",
        "The same load on the leader, on a follower, and spread over all three replicas.",
        {KVSTORE: (PUT_64, PUT_FOLLOWER, PUT_SPREAD, GET_64, GET_FOLLOWER, GET_SPREAD)},
        (
            _row("PUT/s, follower to leader", "per_second", (KVSTORE, PUT_FOLLOWER), (KVSTORE, PUT_64), 0.6),
            _row("GET/s, follower to leader", "per_second", (KVSTORE, GET_FOLLOWER), (KVSTORE, GET_64), 0.6),
            _row("PUT/s 64, all to leader", "per_second", (KVSTORE, PUT_SPREAD), (KVSTORE, PUT_64), 0.9),
            _row("GET/s 64, all to leader", "per_second", (KVSTORE, GET_SPREAD), (KVSTORE, GET_64), 0.9),
        ),
    ),
    ComparisonScenario(
        "five",
        "Five replicas and three on the same cores.",
        {KVSTORE: (PUT_64,), FIVE: (PUT_64,)},
        (_row("PUT/s 64, five to three", "per_second", (FIVE, PUT_64), (KVSTORE, PUT_64), 0.7),),
    ),
    ComparisonScenario(
        "grown",
        "A store with 1,000,000 keys, and an empty one. The load uses 10,000 keys.",
        {KVSTORE: (PUT_64, GET_64), GROWN: (PUT_64, GET_64)},
        (
            _row("PUT/s 64, 1 M keys to none", "per_second", (GROWN, PUT_64), (KVSTORE, PUT_64), 0.9),
            _row("GET/s 64, 1 M keys to none", "per_second", (GROWN, GET_64), (KVSTORE, GET_64), 0.9),
        ),
    ),
    ComparisonScenario(
        "open",
        "Requests at even intervals, at half the throughput that a closed loop of 64 connections reached just before. "
        "The latency of a request counts from the time at which it was due.",
        {KVSTORE: (PUT_OPEN,)},
        (
            _row("PUT p99, half the peak", "p99_ms", (KVSTORE, PUT_OPEN), None, 10),
            _row("PUT p99.9, half the peak", "p999_ms", (KVSTORE, PUT_OPEN), None, 30),
        ),
    ),
    ComparisonScenario(
        "values",
        "Large values. The gateway takes base64, but only the bytes of the value itself count.",
        {KVSTORE: (PUT_10K, PUT_100K), ETCD: (PUT_10K, PUT_100K)},
        (
            _row("values of 10 KB, gateway", "bytes_per_second", (KVSTORE, PUT_10K), (ETCD, PUT_10K), 2),
            _row("values of 100 KB, gateway", "bytes_per_second", (KVSTORE, PUT_100K), (ETCD, PUT_100K), 2),
        ),
    ),
)
