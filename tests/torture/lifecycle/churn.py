"""Members that come, go and lose their disks while clients work, with and without kills."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from random import Random

import msgspec

from bench.errors import BenchError
from bench.lifecycle.replicas import wipe
from kvstore.client import Client, ClientError, NoSuchMember
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.torture.faults.history import Judgement, judge
from tests.torture.lifecycle.clients import Failure, Traffic, unexcused

NODES = 3
LEAST, MOST = 3, 5
PATIENCE_S = 90.0
"""A change is made, and whoever came has caught up, within this time, faults included."""
READ_BACK_S = 300.0
WITHOUT_S = 0.5
"""A fault is felt for so long after all replicas are ready again: requests that it met are still under way."""


class What(StrEnum):
    """A change of the members."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    """The replica is stopped, its disk taken away, and it comes back with an empty one."""


class Change(msgspec.Struct, frozen=True):
    """One of them, and whom a fault met meanwhile."""

    what: What
    member: str
    killed: str | None
    seconds: float


class Churn(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    seed: int
    changes: list[Change]
    acknowledged: int
    failures: int
    unexcused: list[Failure]
    """Writes that failed though nothing had been killed."""
    judgement: Judgement
    troubles: list[str]

    def count(self, what: What, *, with_kill: bool) -> int:
        """Changes of a kind."""
        return sum(one.what is what and (one.killed is not None) is with_kill for one in self.changes)

    @property
    def within_limits(self) -> bool:
        """True when nothing was lost or out of order, and no write failed without a fault."""
        found = self.judgement
        wrong = found.lost or found.illegal or found.backwards or found.silent
        return not (wrong or self.troubles or self.unexcused)


async def measure(
    directory: Path, *, changes: int, clients: int, seed: int, on_change: Callable[[Change], None]
) -> Churn:
    """So many changes of a new cluster in `directory`. Raises BenchError or ClusterError."""
    rng = Random(seed)
    cluster = ProcessCluster(NODES, directory)
    cluster.prepare()
    traffic = Traffic(lambda: {name: place.url for name, place in cluster.replicas.items()}, seed)
    operator = _Operator(cluster, rng)
    troubles: list[str] = []
    done: list[Change] = []
    try:
        cluster.start()
        await cluster.wait_ready()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(traffic.client(number))
            for number in range(changes):
                done.append(await operator.change(with_kill=number % 2 == 1))
                on_change(done[-1])
            traffic.stop()
        try:
            await traffic.read_back(READ_BACK_S)
        except TimeoutError:
            troubles.append(f"the keys could not be read back within {READ_BACK_S:.0f} s")
    finally:
        await cluster.stop()
    return Churn(
        seed=seed,
        changes=done,
        acknowledged=traffic.acknowledged,
        failures=len(traffic.failures),
        unexcused=unexcused(traffic.failures, operator.faults),
        judgement=judge(traffic.calls),
        troubles=troubles,
    )


class _Operator:
    """Changes the members of a cluster that runs."""

    def __init__(self, cluster: ProcessCluster, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._number = NODES
        self.faults: list[tuple[int, int]] = []
        """When something was killed and not everybody was back yet, by the clock of the calls."""

    async def change(self, *, with_kill: bool) -> Change:
        """One change, until it is in force and all have caught up. Raises BenchError when that does not happen."""
        began = time.monotonic()
        what, member = self._draw()
        killed: str | None = None
        async with asyncio.TaskGroup() as group:
            if with_kill:
                killed = self._rng.choice([name for name in self._cluster.replicas if name != member])
                group.create_task(self._kill(killed))
            group.create_task(self._make(what, member))
        await self._insist(self._settled, "the members have not settled")
        if self.faults and with_kill:
            self.faults[-1] = (self.faults[-1][0], time.monotonic_ns() + int(WITHOUT_S * 1e9))
        return Change(what, member, killed, time.monotonic() - began)

    def _draw(self) -> tuple[What, str]:
        names = list(self._cluster.replicas)
        possible = [What.REPLACE]
        possible += [What.ADD] * (len(names) < MOST) + [What.REMOVE] * (len(names) > LEAST)
        what = self._rng.choice(possible)
        if what is not What.ADD:
            return what, self._rng.choice(names)
        self._number += 1
        return what, f"n{self._number}"

    async def _make(self, what: What, member: str) -> None:
        match what:
            case What.ADD:
                await self._insist(lambda: self._add(member), f"{member} could not be added")
            case What.REMOVE:
                await self._insist(lambda: self._remove(member), f"{member} could not be removed")
            case What.REPLACE:
                await self._cluster.stop([member])
                await wipe(self._cluster, member, PATIENCE_S)
                self._cluster.start([member])

    async def _add(self, member: str) -> None:
        await self._cluster.add(member)

    async def _remove(self, member: str) -> None:
        data = self._cluster.replicas[member].data
        try:
            await self._cluster.remove(member)
        except NoSuchMember:  # it was removed, and only the answer was missing
            await self._cluster.stop([member])
            self._cluster.replicas.pop(member)
        shutil.rmtree(data, ignore_errors=True)

    async def _kill(self, name: str) -> None:
        """At some moment of the change; it is back a while later."""
        await asyncio.sleep(self._rng.uniform(0, 2))
        self.faults.append((time.monotonic_ns(), 1 << 62))
        self._cluster.kill(name)
        await asyncio.sleep(self._rng.uniform(0, 2))
        self._cluster.start([name])

    async def _settled(self) -> None:
        await self._cluster.wait_ready(timeout_s=POLL_S)
        await self._cluster.wait_joined(*self._cluster.replicas, timeout_s=POLL_S)
        async with Client(self._cluster.endpoints) as client:
            for member in (await client.members()).members:
                if member.name not in self._cluster.replicas:  # nobody knew that it was added
                    await client.remove_member(member.name)

    async def _insist(self, act: Callable[[], Awaitable[None]], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await act()
            except (ClientError, ClusterError) as error:
                if time.monotonic() > deadline:
                    raise BenchError(f"{otherwise} within {PATIENCE_S:.0f} s: {error}") from error
            await asyncio.sleep(POLL_S)
