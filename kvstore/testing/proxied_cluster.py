"""A cluster of real processes, with links that can be cut; see `kvstore.testing`."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import chain, permutations
from pathlib import Path

from kvstore.api.key_range import EVERY_KEY
from kvstore.client import Client
from kvstore.testing import process_cluster
from kvstore.testing.breeding import ForkedCluster
from kvstore.testing.fault_proxies import FaultProxies
from kvstore.testing.process_cluster import ClusterError, describe_exit, leader_of

LOG_LINES = 40
"""Of each replica in `logs`."""


class Cluster:
    """The cluster itself, for an event loop in a thread of its own."""

    def __init__(self, nodes: int, directory: Path, settings: Mapping[str, int | str]) -> None:
        self.supervised = ForkedCluster(nodes, directory, settings=settings)
        self.names = tuple(self.supervised.replicas)
        self._links = FaultProxies(self.supervised.replicas)
        self._open = AsyncExitStack()

    async def open(self) -> None:
        """Start all replicas, and wait until they serve."""
        try:
            await self._open.enter_async_context(self._links)
            self.supervised.prepare(self._links.addresses)
            self._open.callback(self._end)
            await asyncio.to_thread(self.supervised.start)
            await self.wait_ready()
        except BaseException as error:
            error.add_note(self.logs())
            await self.close()
            raise

    async def close(self) -> None:
        """End all replicas at once."""
        await self._open.aclose()

    async def kill(self, *names: str) -> None:
        """End these replicas with SIGKILL; they are gone on return."""
        self.supervised.kill(*filter(self.supervised.runs, self._known(names)))

    async def pause(self, *names: str) -> None:
        """Stop these replicas with SIGSTOP: they keep their connections, and do nothing."""
        for name in self._known(names):
            self.supervised.pause(name)

    async def resume(self, *names: str) -> None:
        """Let them continue, all that are paused by default."""
        for name in self._known(names) or self.names:
            if self.supervised.runs(name):
                self.supervised.resume(name)

    async def restart(self, *names: str) -> None:
        """Start these replicas, all by default; those that run are stopped in order before. They have not caught up on
        return, see `wait_ready`."""
        chosen = self._known(names) or self.names
        await self.supervised.stop(chosen)
        self.supervised.start(chosen)

    async def partition(self, *groups: str | Iterable[str]) -> None:
        """Cut all links between these groups of replicas, and between them and the others: `partition("n1")` cuts n1
        off, `partition(["n1", "n2"], ["n3"])` leaves two of three together. What is sent over a cut link arrives once
        it is healed. Clients reach all of them still."""
        named = [self._known([group] if isinstance(group, str) else tuple(group)) for group in groups]
        rest = [name for name in self.names if name not in set(chain(*named))]
        for one, other in permutations([*named, rest], 2):
            for pair in ((a, b) for a in one for b in other):
                self._links.links[pair].cut()

    async def heal(self) -> None:
        """No link is cut any more."""
        self._links.heal()

    async def wait_ready(self, *names: str, timeout_s: float = 30.0) -> str:
        """Wait until these replicas serve, all by default, and follow one leader; gives its name. Raises
        ClusterError."""
        return await self.supervised.wait_ready(self._known(names) or None, timeout_s=timeout_s)

    async def leader(self, timeout_s: float = 10.0) -> str:
        """The replica that leads, once there is one. Raises ClusterError."""
        try:
            async with asyncio.timeout(timeout_s), self.supervised.status_client() as client:
                while True:
                    leader = leader_of(await self.supervised.statuses(client))
                    if leader is not None:
                        return leader
                    await asyncio.sleep(process_cluster.POLL_S)
        except TimeoutError:
            raise ClusterError(f"nobody leads after {timeout_s:g} s\n{self.logs()}") from None

    async def revive(self) -> None:
        """All replicas run, are connected, and serve."""
        await self.heal()
        await self.resume()
        self.supervised.start()
        await self.wait_ready()

    async def clear(self) -> None:
        """There is no key, no lease and no lock."""
        async with Client(self.supervised.endpoints, exactly_once=False) as client:
            for lease in await client.leases():
                await lease.revoke()
            await client.delete_span(EVERY_KEY)

    def logs(self) -> str:
        """The end of what each replica has printed."""
        parts = []
        for name, place in self.supervised.replicas.items():
            lines = place.log.read_text(errors="replace").splitlines() if place.log.exists() else []
            parts += [f"---- {name}, {describe_exit(self.supervised.exit_of(name))}", *lines[-LOG_LINES:]]
        return "\n".join(parts)

    def _known(self, names: Iterable[str]) -> list[str]:
        found = list(names)
        for name in found:
            if name not in self.names:
                raise ValueError(f"there is no replica {name!r}: those of this cluster are {', '.join(self.names)}")
        return found

    def _end(self) -> None:
        self.supervised.kill(*filter(self.supervised.runs, self.names))
