"""TCP proxies in the links between replicas, which can cut a link or delay it.

Each replica dials every other replica, so there is a proxy for each ordered pair. A cut is silent, as in a real
network: connections stay open, neither data nor the end of a connection gets through, and data sent meanwhile arrives
when the link is healed.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain, permutations
from types import TracebackType
from typing import Self

from kvstore.testing.cluster_directory import HOST, LocalReplica

CHUNK_BYTES = 64 * 1024
QUEUED_CHUNKS = 256
"""Maximum number of buffered chunks of a connection whose link is cut or delayed; a full buffer blocks the sender."""

Pair = tuple[str, str]
"""A direction: from the first replica to the second."""


class DirectedLink:
    """One direction between two replicas, over all connections between them."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._delay_s = 0.0
        self.held = 0
        """Number of chunks and connections that were held back by a cut."""
        self.delayed = 0
        """Number of chunks that were delayed."""

    @property
    def is_cut(self) -> bool:
        """Whether the link is cut."""
        return not self._open.is_set()

    def cut(self) -> None:
        """Hold back all data until `heal`."""
        self._open.clear()

    def delay(self, delay_s: float) -> None:
        """Deliver all data `delay_s` later, until `heal`."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """Deliver data held back by a cut at once, and delayed data when it is due."""
        self._delay_s = 0.0
        self._open.set()

    async def wait_open(self) -> None:
        """Wait until the link is not cut."""
        self.held += self.is_cut
        await self._open.wait()

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Copy `source` to `sink` until it ends, then close `sink`."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver(chunks, sink))
            chunk = await _read(source)
            while chunk:
                self.held += self.is_cut
                self.delayed += self._delay_s > 0
                await chunks.put((asyncio.get_running_loop().time() + self._delay_s, chunk))
                chunk = await _read(source)
            await chunks.put((0.0, b""))

    async def _deliver(self, chunks: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, chunk = await chunks.get()
            wait_s = due - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._open.wait()
            if not chunk:
                sink.close()
                return
            with suppress(OSError):  # `carry` of the other direction notices a lost sink
                sink.write(chunk)
                await sink.drain()


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(CHUNK_BYTES)
    except OSError:
        return b""


class FaultProxies:
    """A proxy for each ordered pair of replicas. Use it in `async with`."""

    def __init__(self, replicas: Mapping[str, LocalReplica]) -> None:
        self._replicas = dict(replicas)
        self.links = {pair: DirectedLink() for pair in permutations(replicas, 2)}
        self.addresses = {(dialer, target): replicas[target].peers for dialer, target in self.links}
        """Address at which the first replica dials the second."""
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for pair in self.links:
            server = await asyncio.start_server(partial(self._accept, pair), HOST, 0)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            self.addresses[pair] = self.addresses[pair]._replace(port=port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # As in Transport.stop: accept no more, and let asyncio finish accepted connections before the server is closed.
        for listener in chain.from_iterable(server.sockets for server in self._servers):
            asyncio.get_running_loop().remove_reader(listener)
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for _ in range(2):
            await asyncio.sleep(0)  # the tasks of accepted connections are created, then begin
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def leaving(self, names: Iterable[str]) -> list[Pair]:
        """Return each direction from one of these replicas to another replica; all directions when `names` contains
        all replicas."""
        inside = set(names)
        if inside == set(self._replicas):
            return list(self.links)
        return [pair for pair in self.links if pair[0] in inside and pair[1] not in inside]

    def heal(self) -> None:
        """Heal all links."""
        for link in self.links.values():
            link.heal()

    async def _accept(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio starts a task for each connection
        self._connections.add(task)
        try:
            await self._connect(pair, reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio would log an error for a cancelled connection callback
        finally:
            self._connections.discard(task)
            writer.close()

    async def _connect(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialer, target = pair
        forward, backward = self.links[dialer, target], self.links[target, dialer]
        await forward.wait_open()
        await backward.wait_open()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._replicas[target].peers)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(forward.carry(reader, far_writer))
                tasks.create_task(backward.carry(far_reader, writer))
        finally:
            far_writer.close()
