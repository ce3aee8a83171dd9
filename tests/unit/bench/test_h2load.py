"""gRPC calls by h2load: what is sent, and what its output says."""

import asyncio
from pathlib import Path

import pytest

from bench.compare import h2load
from bench.errors import BenchError
from bench.stores import total

OUTPUT = """\
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
LINE = (
    'grpc_server_handled_total{{grpc_code="{}",grpc_method="{}",grpc_service="etcdserverpb.KV",grpc_type="unary"}} {}'
)


def handled(ok: int, bad: int) -> str:
    help_line = "# HELP grpc_server_handled_total Total number of RPCs completed on the server."
    samples = [("Aborted", "Put", 0), ("OK", "Put", ok), ("OK", "Range", 9), ("Unknown", "Put", bad)]
    return "\n".join([help_line, *(LINE.format(*sample) for sample in samples), ""])


def test_the_output_tells_rate_successes_and_errors() -> None:
    assert h2load.parse(OUTPUT) == (9779.0, 19550, 8)


@pytest.mark.parametrize("output", ["", "Could not resolve host", OUTPUT.replace("finished", "ended")])
def test_an_output_without_a_result_is_shown(output: str) -> None:
    with pytest.raises(BenchError, match="h2load gave no result") as error:
        h2load.parse(output)
    assert output.strip()[-100:] in str(error.value)


def test_a_put_is_a_frame_with_key_and_value() -> None:
    assert h2load.put(b"key", b"value") == b"\0\0\0\0\x0c" + b"\x0a\x03key" + b"\x12\x05value"


def test_a_long_value_has_a_length_of_several_bytes() -> None:
    frame = h2load.put(b"k", b"v" * 300)
    assert frame[:5] == b"\0" + (3 + 3 + 300).to_bytes(4, "big")
    assert frame[8:11] == b"\x12\xac\x02"


def test_a_get_is_a_frame_with_a_key() -> None:
    assert h2load.get(b"key") == b"\0\0\0\0\x05\x0a\x03key"


def test_samples_are_summed_over_the_labels_that_are_not_named() -> None:
    text = handled(ok=7, bad=2)
    name = "grpc_server_handled_total"
    assert total(text, name) == 18
    assert total(text, name, {"grpc_method": "Put"}) == 9
    assert total(text, name, {"grpc_method": "Put", "grpc_code": "OK"}) == 7
    assert total("fsyncs_count 1\nfsyncs_count_total 5\nfsyncs 9\n", "fsyncs_count") == 1


def calls(monkeypatch: pytest.MonkeyPatch, directory: Path, *metrics: str) -> tuple[h2load.Load, list[str]]:
    commands: list[str] = []
    told = iter(metrics)

    async def scraped(_: str) -> str:
        return next(told)

    async def output_of(command: list[str], _: float) -> str:
        commands.extend(command)
        return OUTPUT

    monkeypatch.setattr(h2load, "scraped", scraped)
    monkeypatch.setattr(h2load, "output_of", output_of)
    running = h2load.run("h2load", directory, "http://h:1", "put", clients=4, streams=2, value_bytes=100, seconds=2)
    return asyncio.run(running), commands


def test_calls_are_those_that_etcd_ended_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, after = handled(ok=100, bad=0), handled(ok=30_000, bad=8)
    load, command = calls(monkeypatch, tmp_path, before, after)
    assert load == h2load.Load(per_second=9779.0, errors=8, calls=29_900)
    assert command[-1] == "http://h:1/etcdserverpb.KV/Put"
    assert (tmp_path / "put.grpc").read_bytes() == h2load.put(h2load.KEY, b"v" * 100)


@pytest.mark.parametrize(("ok", "bad"), [(19_000, 0), (30_000, 9)])
def test_calls_that_failed_in_a_trailer_are_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ok: int, bad: int
) -> None:
    with pytest.raises(BenchError, match=f"etcd ended {bad} with another status than OK, and {ok} with it"):
        calls(monkeypatch, tmp_path, handled(ok=0, bad=0), handled(ok=ok, bad=bad))
