"""Clients that close their side of the connection and read on, as `nc -N` does, and clients that are gone."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from kvstore.server.http import response_writer
from tests.unit.kvstore.server.http.fake import Store, Wire, request, run

LOOPS = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
PUT = request("PUT", "/kv/a", body=b"1")


async def _half_closed(store: Store, data: bytes) -> Wire:
    wire = await store.wire()
    wire.send(data)
    wire.writer.write_eof()
    return wire


@LOOPS
@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (PUT, [201]),
        (PUT + request("GET", "/kv/a") + request("DELETE", "/kv/a"), [201, 200, 200]),
        (request("GET", "/kv/") * 3, [200] * 3),
        (request("GET", "/livez") + request("POST", "/leases", body=b'{"ttl_s": 5}'), [200, 201]),
        (PUT + b"GET /kv/a HTT", [201, 400]),
        (b"GET /kv/a HTTP/1.1\r\nHost: store\r\n", [400]),
        (PUT + request("PUT", "/kv/b", "Content-Length: 9") + b"1", [201, 400]),
        (request("POST", "/kv/a", "Content-Length: 9") + b"1", [405]),
    ],
)
def test_all_complete_requests_are_answered_and_the_connection_ends(
    data: bytes, statuses: list[int], loops: Callable[[], Any]
) -> None:
    async def scenario(store: Store) -> None:
        async with await _half_closed(store, data) as wire:
            replies = [await wire.reply() for _ in statuses]
            assert [reply.status for reply in replies] == statuses
            assert await wire.closed() == b""

    run(scenario, loops=loops)


def test_requests_that_were_not_parsed_yet_are_answered_too() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await _half_closed(store, request("PUT", "/kv/a", body=bytes(30_000)) * 20) as wire:
            await store.replica.arrived.get()
            store.replica.gate.set()
            assert [(await wire.reply()).status for _ in range(20)] == [201] + [200] * 19
            assert await wire.closed() == b""

    run(scenario)


@LOOPS
@pytest.mark.parametrize(("target", "first"), [("/watch?prefix=", b"retry: 1000"), ("/events", b"retry: 1000")])
def test_a_stream_goes_on_until_the_client_stops_reading(
    target: str, first: bytes, loops: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_writer, "PROBE_S", 0.01)

    async def scenario(store: Store) -> None:
        async with await _half_closed(store, request("GET", target)) as wire:
            assert (await wire.reply()).status == 200
            await wire.reader.readuntil(first)
            if target != "/events":
                assert (await store.call("PUT", "/kv/a", b"v")).status == 201
                await wire.reader.readuntil(b"event: put")
            else:
                await wire.reader.readuntil(b"event: glimpse")

    run(scenario, loops=loops)


@LOOPS
@pytest.mark.parametrize("target", ["/watch?key=quiet", "/events"])
def test_a_stream_to_a_client_that_is_gone_ends(
    target: str, loops: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to a quiet watch, so the client is probed."""
    monkeypatch.setattr(response_writer, "PROBE_S", 0.01)

    async def scenario(store: Store) -> None:
        with socket.create_connection(("127.0.0.1", store.port)) as client:
            client.sendall(request("GET", target))
            assert (await store.call("GET", "/livez")).status == 200  # a while later
        await store.frontend._all_left.wait()

    run(scenario, loops=loops)


def test_a_client_that_has_a_part_of_an_event_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment in the middle of an event would belong to the event."""
    monkeypatch.setattr(response_writer, "PROBE_S", 0.01)
    monkeypatch.setattr(response_writer, "PROBES", 1000)
    value = b"x" * 1_000_000

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("GET", "/watch?prefix="))
            assert (await wire.reply()).status == 200
            await wire.reader.readuntil(b"\n\n")
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(8):
                await store.call("PUT", "/kv/a", value)
            wire.writer.write_eof()
            await asyncio.sleep(0.1)  # several probes would be due
            wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
            received = bytearray()
            while received.count(b"event: put") < 8 or not received.endswith(b"\n\n\r\n"):
                received += await wire.reader.read(1 << 20)
        events = b"".join(_chunks(bytes(received)))
        assert events.count(value) == 8

    run(scenario)


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yield the chunks of the rest of a body whose first chunk was read up to its CRLF."""
    start = body.index(b"\r\n") + 2
    while start < len(body):
        line = body.index(b"\r\n", start)
        end = line + 2 + int(body[start:line], 16)
        yield body[line + 2 : end]
        start = end + 2


@LOOPS
def test_a_request_that_waits_is_answered_unless_its_client_is_gone(
    loops: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_writer, "PROBE_S", 0.01)

    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        with socket.create_connection(("127.0.0.1", store.port)) as gone:
            gone.sendall(PUT)
            await store.replica.arrived.get()
        await store.frontend._all_left.wait()
        async with await _half_closed(store, PUT) as wire:
            await store.replica.arrived.get()
            assert (await wire.reply()).line == "HTTP/1.1 100 Continue"
            store.replica.gate.set()
            reply = await wire.reply()
            while reply.status == 100:
                reply = await wire.reply()
            assert reply.status == 200
            assert await wire.closed() == b""

    run(scenario, loops=loops)


def test_bytes_behind_the_last_request_do_not_cost_its_response() -> None:
    """To close a connection with unread bytes resets it: RFC 9112, 9.6."""

    async def scenario(store: Store) -> None:
        for last in (request("GET", "/livez", "Connection: close"), b"GET /livez HTTP/1.0\r\n\r\n"):
            async with await store.wire() as wire:
                wire.send(last + bytes(4 * 1024 * 1024))
                reply = await wire.reply()
                assert (reply.status, reply.body) == (200, b"ok\n")
                assert await wire.closed() == b""

    run(scenario)
