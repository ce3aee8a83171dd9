"""The memory of requests: its bound over all connections, and who makes room."""

import asyncio
from collections.abc import Callable

import pytest

from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import Problem
from kvstore.server.http.received_bytes import ReceivedBytes
from tests.unit.kvstore.server.http.fake import Store, Wire, request, run

KIB = 1024


class Partial:
    """A connection with an incomplete request."""

    def __init__(self) -> None:
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def test_the_oldest_incomplete_request_makes_room() -> None:
    received, first, second, third = ReceivedBytes(100), Partial(), Partial(), Partial()
    received.set_partial(first, 1)
    received.set_partial(second, 40)
    received.set_partial(first, 50)
    received.set_partial(third, 50)
    assert (first.evicted, second.evicted, third.evicted) == (True, False, False)
    assert received.used == 90
    received.set_partial(second, 0)
    assert received.used == 50


def test_complete_requests_are_refused_only_when_no_incomplete_one_is_left() -> None:
    received, partial = ReceivedBytes(100), Partial()
    received.set_partial(partial, 60)
    received.take(50)
    assert partial.evicted
    received.take(50)
    with pytest.raises(Problem, match="limit"):
        received.take(1)
    assert received.used == 100
    received.give_back(50)
    received.take(50)


def test_a_request_larger_than_the_bound_makes_room_for_itself_in_vain() -> None:
    received, partial = ReceivedBytes(100), Partial()
    received.set_partial(partial, 101)
    assert partial.evicted
    assert received.used == 0


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0)


async def _partial(store: Store, size: int) -> Wire:
    """A PUT of which `size` bytes have arrived."""
    wire = await store.wire()
    assert (await wire.ask(request("PUT", "/kv/part", "Content-Length: 65000", "Expect: 100-continue"))).status == 100
    used = store.frontend._dispatcher.received.used
    wire.send(bytes(size))
    await _until(lambda: store.frontend._dispatcher.received.used != used)
    return wire


def test_bodies_in_part_are_bounded_and_do_not_keep_others_from_reading_and_writing() -> None:
    async def scenario(store: Store) -> None:
        received = store.frontend._dispatcher.received
        slow = [await _partial(store, 16 * KIB) for _ in range(6)]
        assert received.used == 96 * KIB
        last = await _partial(store, 4 * KIB)
        assert received.used == 100 * KIB
        async with await store.wire() as other:
            assert (await other.ask(request("PUT", "/kv/a", body=bytes(KIB)))).status == 201
            assert (await other.ask(request("GET", "/kv/a"))).status == 200
        refused = await slow[0].reply()
        assert (refused.status, refused.headers["retry-after"], refused.headers["connection"]) == (429, "1", "close")
        problem = refused.problem()
        assert (problem["type"], problem["outcome"]) == ("urn:kvstore:problem:overloaded", "failed")
        assert received.used == 84 * KIB
        assert (await slow[1].ask(bytes(65000 - 16 * KIB))).status in (201, 200, 429)
        for wire in (*slow, last):
            wire.writer.close()
        await _until(lambda: received.used == 0)

    run(scenario, HttpLimits(max_received_bytes=100 * KIB))


def test_bytes_behind_a_request_in_progress_and_heads_in_part_are_counted() -> None:
    async def scenario(store: Store) -> None:
        received = store.frontend._dispatcher.received
        store.replica.gate.clear()
        async with await store.wire() as busy, await store.wire() as head:
            busy.send(request("DELETE", "/kv/a") + request("GET", "/kv/b") * 1000)
            await store.replica.arrived.get()
            behind = received.used
            assert behind > 10 * KIB
            head.send(b"GET /kv/a HTTP/1.1\r\nX: " + b"x" * 100)
            await _until(lambda: received.used != behind)
            async with await store.wire() as third:
                third.send(request("PUT", "/kv/c", f"Content-Length: {40 * KIB}") + bytes(39 * KIB))
                await _until(lambda: received.used > 38 * KIB)
                store.replica.gate.set()
                assert (await busy.reply()).status == 404
                last = await busy.reply()
                while last.status == 404:
                    last = await busy.reply()
                assert (last.status, last.headers["connection"]) == (429, "close")
        await _until(lambda: received.used == 0)

    run(scenario, HttpLimits(max_received_bytes=50 * KIB))


def test_the_bytes_of_a_complete_request_are_counted_until_its_response() -> None:
    async def scenario(store: Store) -> None:
        received = store.frontend._dispatcher.received
        store.replica.gate.clear()
        async with await store.wire() as wire, await store.wire() as other:
            wire.send(request("PUT", "/kv/a", body=bytes(60 * KIB)))
            await store.replica.arrived.get()
            assert received.used == 60 * KIB
            assert (await other.ask(request("PUT", "/kv/b", body=bytes(50 * KIB)))).status == 429
            other.send(request("GET", "/kv/b"))
            await store.replica.arrived.get()
            store.replica.gate.set()
            assert (await wire.reply()).status == 201
            assert (await other.reply()).status == 404
            assert received.used == 0
            assert (await other.ask(request("PUT", "/kv/b", body=bytes(50 * KIB)))).status == 201

    run(scenario, HttpLimits(max_received_bytes=100 * KIB))


def test_a_document_has_a_smaller_bound_than_a_value() -> None:
    """A request for a lock may wait for a minute with its body in memory."""

    async def scenario(store: Store) -> None:
        for target in ("/leases", "/locks/l", "/members"):
            async with await store.wire() as wire:
                reply = await wire.ask(request("POST", target, body=b" " * 65 * KIB))
                assert reply.status == 413
                assert "65536" in reply.problem()["detail"]

    run(scenario)
