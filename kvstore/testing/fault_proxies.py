"""The links between replicas, each through a small proxy of ours that can hold back or delay what it carries.

Each replica dials every other one, so there is a proxy for each ordered pair. To cut a direction is silent, as in a
real network: connections stay, nothing comes through, the end of a connection neither, and what was sent meanwhile
arrives once it is healed.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import permutations
from types import TracebackType
from typing import Self

from kvstore.testing.process_cluster import HOST, LocalReplica

CHUNK_BYTES = 64 * 1024
QUEUED_CHUNKS = 256
"""Chunks that one connection keeps while they wait; beyond them its sender has to wait, too."""

Pair = tuple[str, str]
"""From the first replica to the second."""


class DirectedLink:
    """One direction between two replicas, over all connections between them."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._delay_s = 0.0
        self.held = 0
        """How often something came and had to wait because the way is cut: bytes, or a connection."""
        self.delayed = 0
        """How often bytes came and were delayed."""

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return not self._open.is_set()

    def cut(self) -> None:
        """Let nothing through until `heal`."""
        self._open.clear()

    def delay(self, delay_s: float) -> None:
        """Let everything arrive this much later until `heal`."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """Carry everything again: what is held back at once, what is delayed when it is due."""
        self._delay_s = 0.0
        self._open.set()

    async def opened(self) -> None:
        """Wait until it is not cut."""
        self.held += self.is_cut
        await self._open.wait()

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry bytes from `source` until it ends; then close `sink`."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._deliver(chunks, sink))
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
            with suppress(OSError):  # a sink that is gone: its own end comes the other way
                sink.write(chunk)
                await sink.drain()


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(CHUNK_BYTES)
    except OSError:
        return b""


class FaultProxies:
    """A proxy for each ordered pair of replicas, while in `async with`."""

    def __init__(self, places: Mapping[str, LocalReplica]) -> None:
        self._places = dict(places)
        self.links = {pair: DirectedLink() for pair in permutations(places, 2)}
        self.addresses = {(dialer, target): places[target].peers for dialer, target in self.links}
        """Where the first dials the second."""
        self._servers: list[asyncio.Server] = []
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for pair in self.links:
            server = await asyncio.start_server(partial(self._connect, pair), HOST, 0)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            self.addresses[pair] = self.addresses[pair]._replace(port=port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def leaving(self, some: Iterable[str]) -> list[Pair]:
        """Each way out of `some` replicas to one of the others; among all when it is all of them."""
        inside = set(some)
        if inside == set(self._places):
            return list(self.links)
        return [pair for pair in self.links if pair[0] in inside and pair[1] not in inside]

    def heal(self) -> None:
        """All ways carry everything again."""
        for way in self.links.values():
            way.heal()

    async def _connect(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._carrying.add(task)
        try:
            await self._join(pair, reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio's streams would complain about a callback of theirs that was cancelled
        finally:
            self._carrying.discard(task)
            writer.close()

    async def _join(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialer, target = pair
        forth, back = self.links[dialer, target], self.links[target, dialer]
        await forth.opened()
        await back.opened()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._places[target].peers)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(forth.carry(reader, far_writer))
                both.create_task(back.carry(far_reader, writer))
        finally:
            far_writer.close()
