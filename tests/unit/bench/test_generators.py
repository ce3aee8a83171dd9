"""The load generators of others: their requests and their output."""

import asyncio
import base64
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from bench.compare import generators
from bench.compare.generators import H2loadResult, WrkResult
from bench.compare.stores import total
from bench.errors import BenchError

WRK_LINE = '{"requests":300,"seconds":2.000000,"errors":1,"p50_ms":1.500000,"p99_ms":9.250000,"p999_ms":11.5}'
H2LOAD_OUTPUT = """\
starting benchmark...
spawning thread #0: 4 total client(s). Timing-based test with 1s of warm-up time and 2s of main duration
Warm-up started for thread #0.
progress: 25% of clients started
Application protocol: h2c
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 3.00s, 9779.00 req/s, 691.25KB/s
requests: 19558 total, 19558 started, 19558 done, 19550 succeeded, 5 failed, 2 errored, 1 timeout
status codes: 19558 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.35MB (1415680) total, 57.74KB (59124) headers (space savings 94.73%), 935.79KB (958246) data
                     min         max         mean         sd        +/- sd
time for request:      209us     13.89ms      1.57ms      1.21ms    89.16%
"""


def test_the_last_line_of_wrk_is_the_result() -> None:
    output = f"Running 2s test @ http://127.0.0.1:1\n  64 connections\n{WRK_LINE}\n"
    assert generators.parse_wrk(output) == WrkResult(300, 2.0, 1, 1.5, 9.25, 11.5)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused", WRK_LINE[:-10]])
def test_an_output_without_a_result_is_shown(output: str) -> None:
    for parse in (generators.parse_wrk, generators.parse_h2load):
        with pytest.raises(BenchError, match="printed no result") as error:
            parse(output)
        assert output in str(error.value)


def test_requests_to_a_key_carry_its_value() -> None:
    put = generators.kvstore_request("put", b"key", b"value")
    assert put == b"PUT /kv/key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue"
    assert generators.kvstore_request("get", b"key", b"value").startswith(b"GET /kv/key HTTP/1.1\r\n")
    for operation, fields in (("put", {"key": "key", "value": "value"}), ("get", {"key": "key"})):
        request = generators.gateway_request(operation, b"key", b"value")  # type: ignore[arg-type]
        body = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
        assert {name: base64.b64decode(value).decode() for name, value in body.items()} == fields


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk")
def test_wrk_sends_the_requests_in_turn_and_counts_answers_that_are_not_2xx(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.path, await request.text()))
        return web.Response(status=500 if len(seen) == 1 else 200)

    async def load() -> WrkResult:
        requests = [generators.kvstore_request("put", b"k%d" % number, b"value\n1") for number in (1, 2)]
        generators.write_requests(tmp_path / "requests", requests)
        async with RawTestServer(answer) as server:
            return await generators.run_wrk(tmp_path / "requests", {f"http://{server.host}:{server.port}": 1}, 1)

    measured = asyncio.run(load())
    assert seen[:2] == seen[2:4] == [("PUT", "/kv/k1", "value\n1"), ("PUT", "/kv/k2", "value\n1")]
    assert measured.errors == 1
    assert 3 <= measured.requests <= len(seen)


def test_h2load_reports_rate_successes_and_errors() -> None:
    assert generators.parse_h2load(H2LOAD_OUTPUT) == (9779.0, 19550, 8)


def test_a_grpc_call_is_a_frame_with_the_fields() -> None:
    assert generators.grpc_put(b"key", b"value") == b"\0\0\0\0\x0c" + b"\x0a\x03key" + b"\x12\x05value"
    assert generators.grpc_get(b"key") == b"\0\0\0\0\x05\x0a\x03key"
    long = generators.grpc_put(b"k", b"v" * 300)
    assert long[:5] == b"\0" + (3 + 3 + 300).to_bytes(4, "big")
    assert long[8:11] == b"\x12\xac\x02"


def handled(ok: int, bad: int) -> str:
    lines = ["# HELP grpc_server_handled_total x", "# TYPE grpc_server_handled_total counter"]
    line = 'grpc_server_handled_total{{grpc_code="{}",grpc_method="{}",grpc_service="etcdserverpb.KV"}} {}'
    samples = [("Aborted", "Put", 0), ("OK", "Put", ok), ("OK", "Range", 9), ("Unknown", "Put", bad)]
    return "\n".join([*lines, *(line.format(*sample) for sample in samples), ""])


def test_a_metric_is_summed_over_the_labels_that_are_not_named() -> None:
    text, name = handled(ok=7, bad=2), "grpc_server_handled_total"
    assert total(text, name) == 18
    assert total(text, name, {"grpc_method": "Put"}) == 9
    assert total(text, name, {"grpc_method": "Put", "grpc_code": "OK"}) == 7


def calls(monkeypatch: pytest.MonkeyPatch, directory: Path, *metrics: str) -> tuple[H2loadResult, list[str]]:
    commands: list[str] = []
    scrapes, text = iter(metrics), ""

    async def metric(_: str, name: str, labels: Mapping[str, str]) -> float:
        nonlocal text
        text = next(scrapes) if "grpc_code" in labels else text  # each count takes two looks at one scrape
        return total(text, name, labels)

    async def output_of(command: list[str], _: float) -> tuple[int, str]:
        commands.extend(command)
        return 0, H2LOAD_OUTPUT

    monkeypatch.setattr(generators, "find_h2load", lambda: "h2load")
    monkeypatch.setattr(generators, "metric", metric)
    monkeypatch.setattr(generators, "output_of", output_of)
    run = generators.run_h2load(directory, "http://h:1", "put", clients=4, streams=2, value_bytes=100, seconds=2)
    return asyncio.run(run), commands


def test_calls_are_those_that_etcd_ended_with_status_ok(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, command = calls(monkeypatch, tmp_path, handled(ok=100, bad=0), handled(ok=30_000, bad=8))
    assert result == H2loadResult(per_second=9779.0, errors=8, calls=29_900)
    assert command[-1] == "http://h:1/etcdserverpb.KV/Put"
    assert (tmp_path / "put.grpc").read_bytes().endswith(b"v" * 100)


@pytest.mark.parametrize(("ok", "bad"), [(19_000, 0), (30_000, 9)])
def test_calls_that_failed_in_a_trailer_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ok: int, bad: int
) -> None:
    with pytest.raises(BenchError, match=f"etcd ended {ok} with status OK and {bad} with another status"):
        calls(monkeypatch, tmp_path, handled(ok=0, bad=0), handled(ok=ok, bad=bad))
