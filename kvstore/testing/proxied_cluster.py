"""A cluster of real processes whose links can be cut: the asyncio code behind LocalCluster and AsyncLocalCluster."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import chain, permutations
from pathlib import Path

from kvstore.api.key_range import EVERY_KEY
from kvstore.client import Client
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.fault_proxies import FaultProxies
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import POLL_S, READY_S
from kvstore.testing.replica_status import describe_exit, leader_of

LOG_LINES = 40
"""Maximum number of lines of each replica in `logs`."""


class ProxiedCluster:
    """Forked replicas whose links pass through proxies in this process."""

    def __init__(self, nodes: int, directory: Path, settings: Mapping[str, int | str]) -> None:
        self.processes = ForkedCluster(nodes, directory, settings=settings)
        self.names = tuple(self.processes.replicas)
        self._proxies = FaultProxies(self.processes.replicas)
        self._open = AsyncExitStack()

    async def open(self) -> None:
        """Start all replicas and wait until they are ready."""
        try:
            await self._open.enter_async_context(self._proxies)
            self.processes.prepare(self._proxies.addresses)
            self._open.callback(self._kill_all)
            await asyncio.to_thread(self.processes.start)
            await self.wait_ready()
        except BaseException as error:
            error.add_note(self.logs())
            await self.close()
            raise

    async def close(self) -> None:
        """Kill all replicas."""
        await self._open.aclose()

    async def kill(self, *names: str) -> None:
        """Kill these replicas with SIGKILL and wait until they are gone."""
        self.processes.kill(*filter(self.processes.runs, self._known(names)))

    async def pause(self, *names: str) -> None:
        """Suspend these replicas with SIGSTOP: they keep their connections and do nothing."""
        for name in self._known(names):
            self.processes.pause(name)

    async def resume(self, *names: str) -> None:
        """Resume these replicas, all by default."""
        for name in self._known(names) or self.names:
            if self.processes.runs(name):
                self.processes.resume(name)

    async def restart(self, *names: str) -> None:
        """Start these replicas, all by default, without waiting until they are ready, see `wait_ready`. A running
        replica is first stopped with SIGTERM."""
        chosen = self._known(names) or self.names
        await self.processes.stop(chosen)
        self.processes.start(chosen)

    async def partition(self, *groups: str | Iterable[str]) -> None:
        """Cut all links between these groups of replicas, and between the groups and the remaining replicas.

        `partition("n1")` isolates n1; `partition(["n1", "n2"], ["n3"])` leaves a majority of two. Data sent over a cut
        link arrives when the link is healed. Clients still reach all replicas.
        """
        named = [self._known([group] if isinstance(group, str) else tuple(group)) for group in groups]
        rest = [name for name in self.names if name not in set(chain(*named))]
        for one, other in permutations([*named, rest], 2):
            for pair in ((a, b) for a in one for b in other):
                self._proxies.links[pair].cut()

    async def heal(self) -> None:
        """Heal all links."""
        self._proxies.heal()

    async def wait_ready(self, *names: str, timeout_s: float = READY_S) -> str:
        """Wait until these replicas, all by default, are ready and follow one leader; return the name of the leader.
        Raises ClusterError."""
        return await self.processes.wait_ready(self._known(names) or None, timeout_s=timeout_s)

    async def leader(self, timeout_s: float = READY_S) -> str:
        """Return the name of the leader as soon as there is one. Raises ClusterError after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self.processes.status_client() as client:
                while True:
                    leader = leader_of(await self.processes.statuses(client))
                    if leader is not None:
                        return leader
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ClusterError(f"there is no leader after {timeout_s:g} s\n{self.logs()}") from None

    async def revive(self) -> None:
        """Heal all links, resume or start all replicas, and wait until they are ready."""
        await self.heal()
        await self.resume()
        self.processes.start()
        await self.wait_ready()

    async def clear(self) -> None:
        """Revoke all leases, which ends all locks, and delete all keys."""
        async with Client(self.processes.endpoints, exactly_once=False) as client:
            for lease in await client.leases():
                await lease.revoke()
            await client.delete_span(EVERY_KEY)

    def logs(self) -> str:
        """Return the last lines of the output of each replica."""
        parts = []
        for name, replica in self.processes.replicas.items():
            lines = replica.log.read_text(errors="replace").splitlines() if replica.log.exists() else []
            parts += [f"---- {name}, {describe_exit(self.processes.exit_of(name))}", *lines[-LOG_LINES:]]
        return "\n".join(parts)

    def _known(self, names: Iterable[str]) -> list[str]:
        """Return `names` as a list. Raises ValueError for a name that no replica of this cluster has."""
        known = list(names)
        for name in known:
            if name not in self.names:
                raise ValueError(f"no replica {name!r}: the replicas of this cluster are {', '.join(self.names)}")
        return known

    def _kill_all(self) -> None:
        self.processes.kill(*filter(self.processes.runs, self.names))
