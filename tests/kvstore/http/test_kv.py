import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.http import answer
from kvstore.http.limits import Limits
from kvstore.http.target import decode_key
from kvstore.requests import Consistency, Outcome, Reason, Record, Refused
from tests.kvstore.http.fake import Store, Wire, request, run

MIB = 1024 * 1024


def test_a_put_creates_then_replaces() -> None:
    async def scenario(store: Store) -> None:
        first = await store.call("PUT", "/kv/a", b"one")
        assert (first.status, json.loads(first.body)) == (201, {"key": "a", "revision": 1, "version": 1})
        assert first.headers["etag"] == '"1"'
        assert first.headers["content-type"] == "application/json"
        second = await store.call("PUT", "/kv/a", b"two")
        assert (second.status, json.loads(second.body)) == (200, {"key": "a", "revision": 2, "version": 2})
        assert second.headers["etag"] == '"2"'
        assert store.replica.records[b"a"].value == b"two"

    run(scenario)


def test_a_get_returns_the_value_byte_for_byte_and_where_it_stands() -> None:
    async def scenario(store: Store) -> None:
        value = bytes(range(256)) * 5
        await store.call("PUT", "/kv/b", b"")
        await store.call("PUT", "/kv/a", b"old")
        await store.call("PUT", "/kv/a", value)
        got = await store.call("GET", "/kv/a")
        assert (got.status, got.body) == (200, value)
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["etag"] == '"3"'
        assert got.headers["kv-revision"] == "3"
        assert got.headers["kv-create-revision"] == "2"
        assert got.headers["kv-version"] == "2"
        assert "date" in got.headers
        assert "kv-applied-slot" not in got.headers

    run(scenario)


def test_a_head_has_the_headers_of_the_get_and_no_body() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"12345")
        async with await store.wire() as wire:
            head = await wire.ask(request("HEAD", "/kv/a"))
            got = await wire.ask(request("GET", "/kv/a"))
            assert head.line == got.line
            assert head.headers.keys() == got.headers.keys()
            assert head.headers["content-length"] == "5"
            absent = await wire.ask(request("HEAD", "/kv/b"))
            assert absent.status == 404
            assert (await wire.ask(request("GET", "/kv/a"))).body == b"12345"

    run(scenario)


def test_a_delete_says_what_was_deleted() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        await store.call("PUT", "/kv/a", b"2")
        gone = await store.call("DELETE", "/kv/a")
        assert gone.status == 200
        assert json.loads(gone.body) == {"key": "a", "revision": 3, "deleted_revision": 2, "version": 2}
        again = await store.call("DELETE", "/kv/a")
        assert again.status == 404
        assert again.problem()["outcome"] == "failed"
        absent = await store.call("GET", "/kv/a")
        assert absent.status == 404
        assert "outcome" not in absent.problem()

    run(scenario)


KEYS = {
    "a": b"a",
    "a//b": b"a//b",
    "/": b"/",
    "//": b"//",
    "a/": b"a/",
    "..": b"..",
    "../../etc/passwd": b"../../etc/passwd",
    "a/./b": b"a/./b",
    "a%2Fb": b"a/b",
    "a%2fb": b"a/b",
    "%2E%2E": b"..",
    "%00": b"\x00",
    "%ff%FE": b"\xff\xfe",
    "%C3%A9": "é".encode(),
    "a+b": b"a+b",
    "a%20b": b"a b",
    "a%25b": b"a%b",
    "a%3Fb": b"a?b",
    "a%23b": b"a#b",
    "a;b=c&d": b"a;b=c&d",
    "%0D%0A": b"\r\n",
    "a" * 1024: b"a" * 1024,
    "%61" * 1024: b"a" * 1024,
}


@pytest.mark.parametrize("escaped", KEYS, ids=lambda escaped: escaped[:20])
def test_the_key_is_the_rest_of_the_path_whatever_it_looks_like(escaped: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await wire.ask(request("PUT", f"/kv/{escaped}", body=b"v"))).status == 201
            assert list(store.replica.records) == [KEYS[escaped]]
            assert (await wire.ask(request("GET", f"/kv/{escaped}"))).body == b"v"
            assert (await wire.ask(request("DELETE", f"/kv/{escaped}"))).status == 200

    run(scenario)


@given(st.binary(min_size=1, max_size=1024))
def test_every_key_survives_its_escapes(key: bytes) -> None:
    assert decode_key("".join(f"%{byte:02X}" for byte in key)) == key


def test_a_key_that_is_no_text_is_told_in_base64() -> None:
    async def scenario(store: Store) -> None:
        put = await store.call("PUT", "/kv/%ff%00", b"v")
        assert json.loads(put.body) == {"key_base64": "/wA=", "revision": 1, "version": 1}

    run(scenario)


@pytest.mark.parametrize("escaped", ["", "%zz", "%2", "a%", "%%41", "a" * 1025, "%61" * 1025])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_key_that_cannot_be_is_refused(method: str, escaped: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request(method, f"/kv/{escaped}"))
            assert reply.status == 400
            problem = reply.problem()
            assert problem["type"] == "urn:kvstore:problem:invalid-key"
            assert problem.get("outcome") == (None if method == "GET" else "failed")
            assert (await wire.ask(request("GET", "/livez"))).status == 200
            assert store.replica.arrived.empty()

    run(scenario)


@pytest.mark.parametrize(
    ("query", "consistency"),
    [
        ("", Consistency.LINEARIZABLE),
        ("?", Consistency.LINEARIZABLE),
        ("?consistency=linearizable", Consistency.LINEARIZABLE),
        ("?consistency=quorum", Consistency.QUORUM),
        ("?consistency=stale", Consistency.STALE),
        ("?consistency=st%61le", Consistency.STALE),
    ],
)
def test_a_read_chooses_its_consistency(query: str, consistency: Consistency) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await wire.ask(request("GET", f"/kv/a{query}"))
            await wire.ask(request("HEAD", f"/kv/a{query}"))
        assert store.replica.reads == [(b"a", consistency), (b"a", consistency)]

    run(scenario)


def test_a_stale_read_tells_how_stale() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        for key, status in (("a", 200), ("b", 404)):
            reply = await store.call("GET", f"/kv/{key}?consistency=stale")
            assert reply.status == status
            assert reply.headers["kv-applied-slot"] == "11"
            assert reply.headers["kv-applied-revision"] == "1"
            assert reply.headers["kv-age-ms"] == "4"
        store.replica.age_ms = None
        assert "kv-age-ms" not in (await store.call("GET", "/kv/a?consistency=stale")).headers

    run(scenario)


@pytest.mark.parametrize(
    ("method", "query", "told"),
    [
        ("GET", "consistency=strong", "linearizable, quorum, stale"),
        ("GET", "consistency=", "linearizable, quorum, stale"),
        ("GET", "consistency", "consistency"),
        ("GET", "Consistency=stale", "consistency"),
        ("GET", "consistency=stale&consistency=stale", "consistency"),
        ("GET", "consistency=stale&x=1", "consistency"),
        ("GET", "&&", "consistency"),
        ("GET", "consistency=%ff", "consistency"),
        ("PUT", "consistency=stale", "none"),
        ("DELETE", "x=1", "none"),
    ],
)
def test_a_query_nobody_knows_is_refused_and_the_known_ones_are_named(method: str, query: str, told: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call(method, f"/kv/a?{query}")
        assert reply.status == 400
        assert reply.problem()["type"] == "urn:kvstore:problem:invalid-query"
        assert told in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_what_does_not_exist_and_what_is_not_allowed() -> None:
    async def scenario(store: Store) -> None:
        for target in ("/kv", "/kvx/a", "/x", "/KV/a", "//kv/a"):
            async with await store.wire() as wire:
                reply = await wire.ask(request("GET", target))
                assert reply.status == 404
                assert "/kv/{key}" in reply.problem()["detail"]
                assert "/status" in reply.problem()["detail"]
        for method in ("POST", "PATCH", "OPTIONS", "TRACE"):
            reply = await store.call(method, "/kv/a")
            assert reply.status == 405
            assert reply.headers["allow"] == "GET, HEAD, PUT, DELETE"
            assert "PUT" in reply.problem()["detail"]

    run(scenario)


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("length", [0, 1, MIB - 1, MIB])
def test_values_from_nothing_to_the_limit(length: int) -> None:
    async def scenario(store: Store) -> None:
        value = bytes(i % 251 for i in range(length))
        assert (await store.call("PUT", "/kv/a", value)).status == 201
        assert (await store.call("GET", "/kv/a")).body == value
        half = length // 2
        chunked = await store.call("PUT", "/kv/b", _chunks(value[:half], value[half:]))
        assert chunked.status == 201
        assert store.replica.records[b"b"].value == value

    run(scenario)


def test_a_body_over_the_limit_is_refused_unread() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", f"Content-Length: {MIB + 1}"))
            assert reply.status == 413
            assert reply.headers["connection"] == "close"
            assert reply.problem()["outcome"] == "failed"
            assert str(MIB) in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_chunked_body_is_cut_off_at_the_limit() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"6\r\n123456\r\n")
            wire.send(b"5\r\n78901\r\n")  # and no end
            reply = await wire.reply()
            assert reply.status == 413
            assert reply.headers["connection"] == "close"
        async with await store.wire() as wire:
            whole = request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"b\r\n12345678901\r\n0\r\n\r\n"
            assert (await wire.ask(whole)).status == 413
        assert store.replica.arrived.empty()

    run(scenario, Limits(max_value_bytes=10))


def test_a_client_that_floods_reads_its_413() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("PUT", "/kv/a", f"Content-Length: {8 * MIB}") + bytes(8 * MIB))
            await wire.writer.drain()
            assert (await wire.reply()).status == 413
            assert await wire.closed() == b""

    run(scenario)


def test_a_client_that_waits_for_100_gets_it_or_the_refusal() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", "Expect: 100-continue", "Content-Length: 3"))
            assert reply.line == "HTTP/1.1 100 Continue"
            assert (await wire.ask(b"abc")).status == 201
            assert store.replica.records[b"a"].value == b"abc"
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", "Expect: 100-continue", f"Content-Length: {MIB + 1}"))
            assert reply.status == 413
            assert reply.headers["connection"] == "close"
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", "Expect: 200-ok", "Content-Length: 3"))
            assert reply.status == 417
            assert reply.problem()["outcome"] == "failed"
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", "Expect: 100-continue", body=b"xyz"))
            assert reply.status == 200  # the body was there already
        assert (await store.call("PUT", "/kv/b", b"abc", expect100=True)).status == 201

    run(scenario)


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", "Content-Length: 3") + b"ab")
            assert reply.status == 408
            assert reply.headers["connection"] == "close"
            assert reply.problem()["outcome"] == "failed"
            assert await wire.closed() == b""
        assert store.replica.arrived.empty()

    run(scenario, Limits(body_timeout_ms=20))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity", "nonsense"])
def test_what_is_stored_is_what_was_sent_even_when_it_is_compressed(coding: str) -> None:
    async def scenario(store: Store) -> None:
        packed = gzip.compress(b"hello" * 100)
        async with await store.wire() as wire:
            assert (await wire.ask(request("PUT", "/kv/a", f"Content-Encoding: {coding}", body=packed))).status == 201
        got = await store.call("GET", "/kv/a", headers={"Accept-Encoding": "gzip"})
        assert got.body == packed
        assert "content-encoding" not in got.headers

    run(scenario)


@pytest.mark.parametrize(
    "field", ['If-Match: "1"', "If-None-Match: *", "If-Unmodified-Since: x", "Content-Range: bytes 0-1/2"]
)
def test_a_write_with_a_condition_that_would_be_ignored_is_refused(field: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            for method in ("PUT", "DELETE"):
                reply = await wire.ask(request(method, "/kv/a", field))
                assert reply.status == 400
                assert field.partition(":")[0] in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked"])
def test_another_transfer_coding_is_refused(coding: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("PUT", "/kv/a", f"Transfer-Encoding: {coding}") + b"0\r\n\r\n")
            assert reply.status == 400
            assert reply.problem()["outcome"] == "failed"
        assert store.replica.arrived.empty()

    run(scenario)


@pytest.mark.parametrize(
    ("reason", "outcome", "status"),
    [
        (Reason.NO_LEADER, Outcome.FAILED, 503),
        (Reason.NO_LEADER, Outcome.UNKNOWN, 503),
        (Reason.TIMEOUT, Outcome.UNKNOWN, 503),
        (Reason.STOPPING, Outcome.FAILED, 503),
        (Reason.OVERLOADED, Outcome.FAILED, 429),
    ],
)
def test_a_refusal_tells_whether_the_write_may_have_been_done(reason: Reason, outcome: Outcome, status: int) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(reason, outcome)
        for method in ("PUT", "DELETE"):
            reply = await store.call(method, "/kv/a")
            assert reply.status == status
            assert reply.headers["retry-after"] == "1"
            problem = reply.problem()
            assert problem["outcome"] == outcome
            assert problem["type"] == f"urn:kvstore:problem:{reason}"
            assert ("read the key" in problem["detail"]) == (outcome is Outcome.UNKNOWN)
        store.replica.fails = Refused(reason, Outcome.FAILED)
        read = await store.call("GET", "/kv/a")
        assert (read.status, read.headers["retry-after"]) == (status, "1")
        assert "outcome" not in read.problem()

    run(scenario)


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), TimeoutError(), ConnectionResetError()])
def test_an_unexpected_error_is_logged_and_its_outcome_unknown(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = error
        put = await store.call("PUT", "/kv/a", b"v")
        assert put.status == 500
        assert put.problem()["outcome"] == "unknown"
        assert b"secret" not in put.body
        assert (await store.call("GET", "/kv/a")).status == 500
        store.replica.fails = None
        assert (await store.call("PUT", "/kv/a", b"v")).status == 201

    run(scenario)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    caplog.clear()


def test_requests_above_the_limit_in_flight_are_refused_at_once() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as first, await store.wire() as second, await store.wire() as third:
            first.send(request("PUT", "/kv/a", body=b"1"))
            second.send(request("GET", "/kv/a"))
            await store.replica.arrived.get()
            await store.replica.arrived.get()
            refused = await third.ask(request("PUT", "/kv/b", body=b"1"))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.problem()["outcome"] == "failed"
            assert (await third.ask(request("GET", "/livez"))).status == 200
            assert b"kvstore_http_requests_in_flight 2.0" in (await third.ask(request("GET", "/metrics"))).body
            store.replica.gate.set()
            assert ((await first.reply()).status, (await second.reply()).status) == (201, 200)
            assert (await third.ask(request("PUT", "/kv/b", body=b"1"))).status == 201

    run(scenario, Limits(max_in_flight=2))


async def _drop(wire: Wire) -> None:
    wire.writer.transport.abort()
    await asyncio.gather(wire.writer.wait_closed(), return_exceptions=True)


def test_a_client_that_leaves_does_not_take_its_write_along() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        wire = await store.wire()
        wire.send(request("PUT", "/kv/a", body=b"1"))
        await store.replica.arrived.get()
        await _drop(wire)
        store.replica.gate.set()
        await store.replica.done.get()
        assert (await store.call("GET", "/kv/a")).body == b"1"

    run(scenario)


@pytest.mark.parametrize("fields", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_within_its_body_writes_nothing(fields: str) -> None:
    async def scenario(store: Store) -> None:
        for _ in range(5):
            wire = await store.wire()
            expecting = request("PUT", "/kv/a", fields, "Expect: 100-continue")
            assert (await wire.ask(expecting)).line == "HTTP/1.1 100 Continue"
            wire.send(b"3\r\nabc\r\n")
            await _drop(wire)
        while "_in_flight 0.0" not in store.metrics.render().decode():
            assert (await store.call("GET", "/livez")).status == 200
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_client_that_leaves_while_its_413_lingers() -> None:
    async def scenario(store: Store) -> None:
        for _ in range(5):
            wire = await store.wire()
            reply = await wire.ask(request("PUT", "/kv/a", f"Content-Length: {2 * MIB}") + bytes(MIB))
            assert reply.status == 413
            await _drop(wire)
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


def test_a_client_that_does_not_take_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "TAKE_TIMEOUT_S", 0.02)

    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(32 * MIB), 1, 1, 1)
        with socket.create_connection(("127.0.0.1", store.port)) as client:
            client.sendall(request("GET", "/kv/a"))
            await store.replica.arrived.get()
            await store.frontend._all_left.wait()
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


def test_a_client_that_takes_a_long_answer_slowly_gets_all_of_it() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(32 * MIB), 1, 1, 1)
        async with await store.wire() as wire:
            assert len((await wire.ask(request("GET", "/kv/a"))).body) == 32 * MIB
            assert (await wire.ask(request("GET", "/livez"))).status == 200

    run(scenario)
