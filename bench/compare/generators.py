"""External load generators: wrk for HTTP, h2load for gRPC.

https://github.com/wg/wrk and https://nghttp2.org/documentation/h2load.1.html

A gRPC call is a POST over HTTP/2. Its body is a byte for compression, four for the length, and the message in protobuf
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). h2load sends one body to one path, so all calls of a
load are for one key. h2load ignores trailers, which contain the status of a gRPC call, so etcd's counters are checked.
"""

import asyncio
import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from bench.compare.stores import metric
from bench.errors import BenchError
from bench.programs import find_program, output_of

Operation = Literal["put", "get"]

_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_S = 30.0
_KEY = b"key-00000"
_METHODS: dict[Operation, str] = {"put": "Put", "get": "Range"}
_RATE = re.compile(r"^finished in .*?, ([\d.]+) req/s", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE)


class WrkResult(msgspec.Struct, frozen=True):
    """Output of wrk. `errors`: broken connections, answers after more than 2 s, and answers that are not 2xx.
    Latencies are None for several wrk processes, whose percentiles cannot be merged."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None


class H2loadResult(msgspec.Struct, frozen=True):
    """Output of h2load. `calls` is the number of calls that etcd ended with status OK, including the warm-up."""

    per_second: float
    errors: int
    calls: int


def find_wrk() -> str:
    """Return the path of wrk. Raises BenchError."""
    return find_program("wrk", "on Debian run apt-get install wrk")


def find_h2load() -> str:
    """Return the path of h2load. Raises BenchError."""
    return find_program("h2load", "on Debian run apt-get install nghttp2-client")


def kvstore_request(operation: Operation, key: bytes, value: bytes) -> bytes:
    """Return an HTTP request to kvstore."""
    if operation == "get":
        return b"GET /kv/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % key
    return b"PUT /kv/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (key, len(value), value)


def gateway_request(operation: Operation, key: bytes, value: bytes) -> bytes:
    """Return an HTTP request to etcd's JSON gateway."""
    fields = {"key": base64.b64encode(key).decode()}
    if operation == "put":
        fields["value"] = base64.b64encode(value).decode()
    body = msgspec.json.encode(fields)
    call = b"put" if operation == "put" else b"range"
    return (
        b"POST /v3/kv/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (call, len(body), body)
    )


def write_requests(file: Path, requests: Iterable[bytes]) -> None:
    """Write requests in the format that `wrk.lua` reads."""
    file.write_bytes(b"".join(b"%d\n%s" % (len(each), each) for each in requests))


async def run_wrk(file: Path, connections: Mapping[str, int], seconds: int) -> WrkResult:
    """Send the requests in `file` in turn, by one wrk process for each URL of `connections`. Raises BenchError."""
    program = find_wrk()

    async def one(url: str, count: int) -> WrkResult:
        options = ("--threads", "1", "--connections", str(count), "--duration", str(seconds), "--script", str(_SCRIPT))
        return parse_wrk((await output_of([program, *options, url, "--", str(file)], seconds + _GRACE_S))[1])

    results = await asyncio.gather(*(one(url, count) for url, count in connections.items()))
    if len(results) == 1:
        return results[0]
    return WrkResult(
        requests=sum(each.requests for each in results),
        seconds=max(each.seconds for each in results),
        errors=sum(each.errors for each in results),
    )


def parse_wrk(output: str) -> WrkResult:
    """Parse the last line of the output of wrk. Raises BenchError."""
    lines = output.splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=WrkResult)
    except msgspec.MsgspecError as error:
        raise BenchError(f"wrk printed no result: {output.strip()[-500:]}") from error


async def run_h2load(
    directory: Path, url: str, operation: Operation, *, clients: int, streams: int, value_bytes: int, seconds: int
) -> H2loadResult:
    """Call etcd on `clients` connections with `streams` calls in flight each, after a second of warm-up.

    Raises BenchError when h2load fails, or when calls end with another status than OK.
    """
    method = _METHODS[operation]
    body = directory / f"{operation}.grpc"
    body.write_bytes(grpc_put(_KEY, b"v" * value_bytes) if operation == "put" else grpc_get(_KEY))
    before = await _handled(url, method)
    options = ["-c", str(clients), "-m", str(streams), "-D", str(seconds), "--warm-up-time=1", "-d", str(body)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = [find_h2load(), *options, *headers, f"{url}/etcdserverpb.KV/{method}"]
    per_second, succeeded, errors = parse_h2load((await output_of(command, seconds + 1 + _GRACE_S))[1])
    after = await _handled(url, method)
    calls, others = after[0] - before[0], after[1] - before[1]
    # Calls in flight when h2load ends are cancelled.
    if calls < succeeded or others > clients * streams:
        raise BenchError(
            f"of the calls by h2load, etcd ended {calls} with status OK and {others} with another status, while h2load "
            f"counts {succeeded} as succeeded: see the logs of etcd"
        )
    return H2loadResult(per_second, errors, calls)


async def _handled(url: str, method: str) -> tuple[int, int]:
    """Return the number of calls of a method that ended with status OK, and with another status."""
    name, labels = "grpc_server_handled_total", {"grpc_service": "etcdserverpb.KV", "grpc_method": method}
    ok = await metric(url, name, {**labels, "grpc_code": "OK"})
    return int(ok), int(await metric(url, name, labels) - ok)


def parse_h2load(output: str) -> tuple[float, int, int]:
    """Parse calls per second, successes and errors. Raises BenchError."""
    rate, requests = _RATE.search(output), _REQUESTS.search(output)
    if rate is None or requests is None:
        raise BenchError(f"h2load printed no result: {output.strip()[-500:]}")
    succeeded, *bad = map(int, requests.groups())
    return float(rate[1]), succeeded, sum(bad)


def grpc_put(key: bytes, value: bytes) -> bytes:
    """Return the body of a call with etcdserverpb.PutRequest: key is field 1, value field 2."""
    return _frame(_field(1, key) + _field(2, value))


def grpc_get(key: bytes) -> bytes:
    """Return the body of a linearizable call with etcdserverpb.RangeRequest: key is field 1."""
    return _frame(_field(1, key))


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
