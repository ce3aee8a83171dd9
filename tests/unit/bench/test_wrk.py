import asyncio
import shutil

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from bench import wrk
from bench.errors import BenchError

LINE = '{"requests":300,"seconds":2.000000,"errors":1,"p50_ms":1.500000,"p99_ms":9.250000,"p999_ms":11.5}'


def test_the_last_line_of_wrk_is_the_result() -> None:
    load = wrk.parse(f"Running 2s test @ http://127.0.0.1:1\n  64 connections\n{LINE}\n")
    assert load == wrk.Load(requests=300, seconds=2.0, errors=1, p50_ms=1.5, p99_ms=9.25, p999_ms=11.5)
    assert load.per_second == 150


def test_loads_at_the_same_time_are_one_whose_latencies_nobody_knows() -> None:
    load = wrk.parse(LINE)
    assert wrk.together([load]) is load
    assert wrk.together([load, load]) == wrk.Load(requests=600, seconds=2.0, errors=2)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused", LINE[:-10]])
def test_an_output_without_a_result_is_shown(output: str) -> None:
    with pytest.raises(BenchError, match="wrk gave no result") as error:
        wrk.parse(output)
    assert output in str(error.value)


def test_without_wrk_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt-get install wrk"):
        wrk.find_wrk()


VALUE = "v" * 100
ENCODED_VALUE = "dnZ2" * 33 + "dg=="
REQUESTS: dict[tuple[str, wrk.Operation], list[tuple[str, str, str]]] = {
    ("kvstore", "put"): [("PUT", f"/kv/key-0000{number}", VALUE) for number in (1, 2)],
    ("kvstore", "get"): [("GET", f"/kv/key-0000{number}", "") for number in (1, 2)],
    ("etcd", "put"): [
        ("POST", "/v3/kv/put", f'{{"key":"a2V5LTAwMDA{last}","value":"{ENCODED_VALUE}"}}') for last in "xy"
    ],
    ("etcd", "get"): [("POST", "/v3/kv/range", f'{{"key":"a2V5LTAwMDA{last}"}}') for last in "xy"],
}


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk")
@pytest.mark.parametrize(("store", "operation"), REQUESTS)
def test_wrk_asks_for_one_key_after_the_other_and_counts_what_is_not_2xx(store: str, operation: wrk.Operation) -> None:
    seen: list[tuple[str, str, str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.path, await request.text()))
        return web.Response(status=500 if len(seen) == 1 else 200)

    async def load() -> wrk.Load:
        async with RawTestServer(answer) as server:
            url = f"http://{server.host}:{server.port}"
            return await wrk.run(wrk.find_wrk(), {url: 1}, store, operation, keys=2, value_bytes=len(VALUE), seconds=1)

    measured = asyncio.run(load())
    assert seen[:2] == REQUESTS[store, operation]
    assert seen[2:4] == seen[:2]
    assert measured.errors == 1
    assert 3 <= measured.requests <= len(seen)
