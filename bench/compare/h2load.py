"""gRPC calls to etcd by h2load, of nghttp2: https://nghttp2.org/documentation/h2load.1.html

A gRPC call is a POST over HTTP/2 whose body is a frame: a byte for compression, four for the length, then the message
in protobuf (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). h2load sends one body to one path, so all
calls of a load are for one key. It does not look at trailers, where gRPC tells how a call ended: etcd's own count does.
"""

import re
from pathlib import Path

import msgspec

from bench.errors import BenchError
from bench.stores import scraped, total
from bench.wrk import Operation, find, output_of

KEY = b"key-00001"
METHODS: dict[Operation, str] = {"put": "Put", "get": "Range"}

_RATE = re.compile(r"^finished in .*?, ([\d.]+) req/s", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE)
_HANDLED = "grpc_server_handled_total"


class Load(msgspec.Struct, frozen=True):
    """What h2load measured. `calls`: those that etcd ended with status OK, the ones of the warm-up too."""

    per_second: float
    errors: int
    calls: int


def find_h2load() -> str:
    """The program. Raises BenchError when it is not installed."""
    return find("h2load", "nghttp2-client")


async def run(
    program: str,
    directory: Path,
    url: str,
    operation: Operation,
    *,
    clients: int,
    streams: int,
    value_bytes: int,
    seconds: int,
) -> Load:
    """`clients` connections with `streams` calls under way each, after a second of warm-up.

    Raises BenchError when h2load fails, or calls did not end with status OK.
    """
    method = METHODS[operation]
    body = directory / f"{operation}.grpc"
    body.write_bytes(put(KEY, b"v" * value_bytes) if operation == "put" else get(KEY))
    before = await _handled(url, method)
    options = ["-c", str(clients), "-m", str(streams), "-D", str(seconds), "--warm-up-time=1", "-d", str(body)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    output = await output_of([program, *options, *headers, f"{url}/etcdserverpb.KV/{method}"], seconds + 1)
    after = await _handled(url, method)
    per_second, succeeded, errors = parse(output)
    calls, others = after[0] - before[0], after[1] - before[1]
    # Those that are under way when h2load leaves are cancelled.
    if calls < succeeded or others > clients * streams:
        raise BenchError(
            f"of the calls that h2load made etcd ended {others} with another status than OK, and {calls} with it, "
            f"while h2load counts {succeeded} successes: see the logs of the members"
        )
    return Load(per_second, errors, calls)


async def _handled(url: str, method: str) -> tuple[int, int]:
    """How many calls of a method ended with status OK, and with another one."""
    text = await scraped(url)
    labels = {"grpc_service": "etcdserverpb.KV", "grpc_method": method}
    fine = total(text, _HANDLED, {**labels, "grpc_code": "OK"})
    return int(fine), int(total(text, _HANDLED, labels) - fine)


def parse(output: str) -> tuple[float, int, int]:
    """Calls a second, successes and errors. Raises BenchError when there are none."""
    rate, requests = _RATE.search(output), _REQUESTS.search(output)
    if rate is None or requests is None:
        raise BenchError(f"h2load gave no result; correct what it complains about: {output.strip()[-500:]}")
    succeeded, *bad = map(int, requests.groups())
    return float(rate[1]), succeeded, sum(bad)


def put(key: bytes, value: bytes) -> bytes:
    """A frame with etcdserverpb.PutRequest: key is field 1, value field 2."""
    return _frame(_field(1, key) + _field(2, value))


def get(key: bytes) -> bytes:
    """A frame with etcdserverpb.RangeRequest: one key is field 1. Linearizable, as serializable is field 7."""
    return _frame(_field(1, key))


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
