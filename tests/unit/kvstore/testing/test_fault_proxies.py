"""Fault proxies between two ends on this machine: links that are open, cut and delayed."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kvstore.api.address import Address
from kvstore.testing.cluster_directory import HOST, LocalReplica
from kvstore.testing.fault_proxies import DirectedLink, FaultProxies

STORY_S = 300.0


class ProxiedLink:
    """The link between n1 and n2, and the connections that n2 accepted."""

    def __init__(
        self, links: FaultProxies, accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    ) -> None:
        self.forth, self.back = links.links["n1", "n2"], links.links["n2", "n1"]
        self._address = links.addresses["n1", "n2"]
        self.accepted = accepted

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._address)


@asynccontextmanager
async def link() -> AsyncIterator[ProxiedLink]:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), HOST, 0)
    target = Address(HOST, server.sockets[0].getsockname()[1])
    places = {name: LocalReplica(name, target, target, Path()) for name in ("n1", "n2")}
    async with asyncio.timeout(STORY_S), FaultProxies(places) as links:
        yield ProxiedLink(links, accepted)
        while not accepted.empty():
            accepted.get_nowait()[1].close()
    server.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a counter sets no event
        await asyncio.sleep(0)


def test_bytes_and_ends_come_through_in_both_directions() -> None:
    async def story() -> None:
        async with link() as pair:
            near_reader, near = await pair.dial()
            far_reader, far = await pair.accepted.get()
            near.write(b"ping")
            assert await far_reader.readexactly(4) == b"ping"
            far.write(b"pong")
            assert await near_reader.readexactly(4) == b"pong"
            near.close()
            assert await far_reader.read() == b""
            far.close()
            assert (pair.forth.held, pair.forth.delayed) == (0, 0)

    asyncio.run(story())


def test_a_cut_holds_back_one_direction_and_keeps_the_connection() -> None:
    async def story() -> None:
        async with link() as pair:
            near_reader, near = await pair.dial()
            far_reader, far = await pair.accepted.get()
            pair.forth.cut()
            near.write(b"lost?")
            near.write_eof()
            await until(lambda: pair.forth.held > 0)
            far.write(b"still here")
            assert await near_reader.readexactly(10) == b"still here"
            waiting = asyncio.create_task(far_reader.read())
            far.write(b"!")
            await near_reader.readexactly(1)
            assert not waiting.done()
            assert pair.back.held == 0
            pair.forth.heal()
            assert await waiting == b"lost?"
            far.close()
            near.close()

    asyncio.run(story())


def test_a_connection_needs_both_directions_of_the_link() -> None:
    async def story(way_of: Callable[[ProxiedLink], DirectedLink]) -> None:
        async with link() as pair:
            way = way_of(pair)
            way.cut()
            _, near = await pair.dial()
            await until(lambda: way.held > 0)
            assert pair.accepted.empty()
            way.heal()
            _, far = await pair.accepted.get()
            far.close()
            near.close()

    asyncio.run(story(lambda pair: pair.forth))
    asyncio.run(story(lambda pair: pair.back))


def test_a_cut_holds_back_all_connections_and_a_full_one_does_not_stop_another() -> None:
    async def story() -> None:
        async with link() as pair:
            _, bulk = await pair.dial()
            _, far_bulk = await pair.accepted.get()  # which does not read
            near_reader, near = await pair.dial()
            far_reader, far = await pair.accepted.get()
            bulk.write(bytes(64 << 20))
            near.write(b"ping")
            assert await far_reader.readexactly(4) == b"ping"
            pair.forth.cut()
            held = pair.forth.held
            near.write(b"held")
            await until(lambda: pair.forth.held > held)
            far.write(b"pong")
            assert await near_reader.readexactly(4) == b"pong"
            pair.forth.heal()
            assert await far_reader.readexactly(4) == b"held"
            bulk.transport.abort()
            for end in (near, far, far_bulk):
                end.close()

    asyncio.run(story())


def test_a_delay_lets_bytes_arrive_later_and_in_order() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with link() as pair:
            _, near = await pair.dial()
            far_reader, far = await pair.accepted.get()
            pair.forth.delay(0.1)
            began = loop.time()
            near.write(b"one")
            await until(lambda: pair.forth.delayed > 0)
            pair.forth.heal()
            near.write(b"two")
            assert await far_reader.readexactly(6) == b"onetwo"
            assert loop.time() - began >= 0.1
            assert pair.forth.delayed == 1
            far.close()
            near.close()

    asyncio.run(story())


def test_a_connection_to_a_dead_replica_ends_at_once() -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda *_: None, HOST, 0)
        gone = Address(HOST, server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()
        async with (
            asyncio.timeout(STORY_S),
            FaultProxies({n: LocalReplica(n, gone, gone, Path()) for n in ("n1", "n2")}) as links,
        ):
            reader, writer = await asyncio.open_connection(*links.addresses["n1", "n2"])
            assert await reader.read() == b""
            writer.close()

    asyncio.run(story())


def test_proxies_close_connections_that_were_accepted_a_moment_ago() -> None:
    async def story() -> None:
        places = {name: LocalReplica(name, Address(HOST, 1), Address(HOST, 1), Path()) for name in ("n1", "n2")}
        for turns in range(8):
            async with FaultProxies(places) as links:
                with socket.create_connection(links.addresses["n1", "n2"]):
                    for _ in range(turns):
                        await asyncio.sleep(0)

    asyncio.run(story())
    gc.collect()  # an unclosed socket is an error now


def test_the_links_that_leave_some_or_all_replicas() -> None:
    places = {name: LocalReplica(name, Address(HOST, 1), Address(HOST, 1), Path()) for name in ("n1", "n2", "n3")}
    links = FaultProxies(places)
    assert links.leaving(["n2"]) == [("n2", "n1"), ("n2", "n3")]
    assert links.leaving(["n1", "n3"]) == [("n1", "n2"), ("n3", "n2")]
    assert set(links.leaving(places)) == set(links.links)
