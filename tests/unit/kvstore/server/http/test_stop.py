import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from kvstore.server.http.server import Frontend
from kvstore.server.metrics import Metrics
from tests.unit.kvstore.server.http.fake import NAMES, FakeReplica, Store, Wire, request, run

LOOPS = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
PUT = request("PUT", "/kv/a", body=b"1")
LONG_MS = 60_000


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    async def scenario(store: Store) -> None:
        second = Frontend(FakeReplica(), Metrics(), names=NAMES)
        with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {store.port}: .*in use.*choose another"):
            await second.start("127.0.0.1", store.port)

    run(scenario)


def test_ipv6() -> None:
    async def main() -> None:
        frontend = Frontend(FakeReplica(), Metrics(), names=NAMES)
        port = await frontend.start("::1", 0)
        reader, writer = await asyncio.open_connection("::1", port)
        assert (await Wire(reader, writer).ask(PUT)).status == 201
        writer.close()
        await frontend.stop(LONG_MS)

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    asyncio.run(main())


@LOOPS
def test_a_stopping_replica_serves_and_says_goodbye(loops: Callable[[], Any]) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert "connection" not in (await wire.ask(PUT)).headers
            store.replica.stopping = True
            last = await wire.ask(PUT)
            assert (last.status, last.headers["connection"]) == (200, "close")
            assert await wire.closed() == b""

    run(scenario, loops=loops)


@LOOPS
def test_a_stop_cuts_no_request(loops: Callable[[], Any]) -> None:
    """One request in progress, one that comes on an open connection after the stop began, one in the kernel's queue."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as busy, await store.wire() as idle:
            assert (await idle.ask(PUT)).status == 201
            await store.replica.arrived.get()
            store.replica.gate.clear()
            busy.send(PUT)
            await store.replica.arrived.get()
            queued = socket.create_connection(("127.0.0.1", store.port))  # blocking: no turn of the loop to accept it
            queued.sendall(PUT)
            stop = asyncio.create_task(store.frontend.stop(LONG_MS))
            idle.send(PUT)
            await store.replica.arrived.get()
            await store.replica.arrived.get()
            assert not stop.done()
            store.replica.gate.set()
            reader, writer = await asyncio.open_connection(sock=queued)
            async with Wire(reader, writer) as late:
                for wire in (busy, idle, late):
                    reply = await wire.reply()
                    assert (reply.status, reply.headers["connection"]) == (200, "close")
                    assert await wire.closed() == b""
            await stop
            with pytest.raises(ConnectionRefusedError):
                await store.wire()

    run(scenario, loops=loops)


def test_a_stop_waits_for_a_body_that_is_still_coming() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as slow, await store.wire() as idle:
            assert (await idle.ask(PUT)).status == 201
            first = await slow.ask(request("PUT", "/kv/a", "Content-Length: 6", "Expect: 100-continue"))
            assert first.status == 100
            stop = asyncio.create_task(store.frontend.stop(LONG_MS))
            assert await idle.closed() == b""  # idle ones are closed by now, the grace for them is over
            slow.send(b"abc")
            last = await slow.ask(b"def")
            assert (last.status, last.headers["connection"]) == (200, "close")
            await stop
            assert store.replica.records[b"a"].value == b"abcdef"

    run(scenario)


@LOOPS
def test_a_stop_closes_connections_that_stay_idle(loops: Callable[[], Any]) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as used, await store.wire() as fresh:
            assert (await used.ask(PUT)).status == 201
            assert (await fresh.ask(PUT)).status == 200
            await store.frontend.stop(LONG_MS)
            assert await used.closed() == b""
            assert await fresh.closed() == b""

    run(scenario, loops=loops)


@LOOPS
def test_a_stop_ends_after_its_grace_whatever_a_request_does(loops: Callable[[], Any]) -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.send(PUT)
            await store.replica.arrived.get()
            await store.frontend.stop(50)
            assert await wire.closed() == b""

    run(scenario, loops=loops)


@LOOPS
def test_clients_that_follow_goodbyes_lose_nothing_in_rolling_restarts(loops: Callable[[], Any]) -> None:
    """Two front ends stop and start in turn under clients that go to the other one when told to or when refused."""

    async def main() -> None:
        ports = [0, 0]
        frontends = [Frontend(FakeReplica(), Metrics(), names=NAMES) for _ in ports]
        for i, frontend in enumerate(frontends):
            ports[i] = await frontend.start("127.0.0.1", 0)
        ended = asyncio.Event()
        clients = [asyncio.create_task(_client(ports, ended)) for _ in range(16)]
        for i in (0, 1, 0, 1):
            await frontends[i].stop(LONG_MS)
            frontends[i] = Frontend(FakeReplica(), Metrics(), names=NAMES)
            await frontends[i].start("127.0.0.1", ports[i])
        ended.set()
        written = await asyncio.gather(*clients)
        assert all(written)
        for frontend in frontends:
            await frontend.stop(LONG_MS)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


async def _client(ports: list[int], ended: asyncio.Event) -> int:
    """Puts until `ended`; any answer but 2xx and any cut connection is an error. How many were written."""
    written, at = 0, 0
    while not ended.is_set():
        try:
            wire = Wire(*await asyncio.open_connection("127.0.0.1", ports[at]))
        except ConnectionRefusedError:
            at = 1 - at
            continue
        async with wire:
            while not ended.is_set():
                reply = await wire.ask(PUT)
                assert reply.status in (200, 201)
                written += 1
                if reply.headers.get("connection") == "close":
                    at = 1 - at
                    break
    return written
