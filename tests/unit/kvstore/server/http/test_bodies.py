"""Bodies of requests: whole, in pieces, too long, never coming."""

import gzip
from collections.abc import AsyncIterator

import pytest

from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.server.http.fake import Store, request, run

MIB = 1024 * 1024


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

    run(scenario, HttpLimits(max_value_bytes=10))


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

    run(scenario, HttpLimits(body_timeout_ms=20))


@pytest.mark.parametrize("target", ["/kv/a", "/txn", "/leases", "/locks/a", "/members", "/members/n1/replace"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "nonsense", "identity, gzip"])
def test_a_body_with_a_content_coding_is_refused_because_its_readers_would_not_learn_of_it(
    coding: str, target: str
) -> None:
    async def scenario(store: Store) -> None:
        method = "PUT" if target == "/kv/a" else "POST"
        async with await store.wire() as wire:
            reply = await wire.ask(request(method, target, f"Content-Encoding: {coding}", body=b"{}"))
            assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
            assert reply.problem()["type"].endswith(":unknown-content-coding")
            assert coding in reply.problem()["detail"]
            assert reply.problem()["outcome"] == "failed"
            assert (await wire.ask(request("GET", "/livez"))).status == 200
        assert store.replica.arrived.empty()

    run(scenario)


@pytest.mark.parametrize("fields", [(), ("Content-Encoding: Identity",), ("Content-Encoding: ,identity",)])
def test_what_is_stored_is_what_was_sent_even_when_it_is_compressed(fields: tuple[str, ...]) -> None:
    async def scenario(store: Store) -> None:
        packed = gzip.compress(b"hello" * 100)
        async with await store.wire() as wire:
            assert (await wire.ask(request("PUT", "/kv/a", *fields, body=packed))).status == 201
        got = await store.call("GET", "/kv/a", headers={"Accept-Encoding": "gzip"})
        assert got.body == packed
        assert "content-encoding" not in got.headers

    run(scenario)


@pytest.mark.parametrize("field", ["Content-Range: bytes 0-1/2", "If-Match: 1", 'If-None-Match: "1", 2'])
def test_a_write_with_a_condition_that_would_be_ignored_is_refused(field: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            for method in ("PUT", "DELETE"):
                reply = await wire.ask(request(method, "/kv/a", field))
                assert reply.status == 400
                assert field.partition(":")[0] in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_another_transfer_coding_is_refused() -> None:
    async def scenario(store: Store) -> None:
        for coding, status in (("gzip, chunked", 501), ("chunked, chunked", 400)):
            async with await store.wire() as wire:
                reply = await wire.ask(request("PUT", "/kv/a", f"Transfer-Encoding: {coding}") + b"0\r\n\r\n")
                assert reply.status == status
                assert reply.headers["connection"] == "close"
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_value_over_http_1_0_without_a_length_is_refused_instead_of_lost() -> None:
    """RFC 1945 (7.2.2): the end of the connection cannot end the body of a request."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(b"PUT /kv/a HTTP/1.0\r\n\r\nhello")
            assert reply.status == 400
            assert "Content-Length" in reply.problem()["detail"]
        assert store.replica.arrived.empty()
        async with await store.wire() as wire:
            assert (await wire.ask(b"PUT /kv/a HTTP/1.0\r\nContent-Length: 0\r\n\r\n")).status == 201

    run(scenario)
