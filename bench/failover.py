"""How long a cluster takes no writes when its leader dies, and whether it keeps what it acknowledged."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.figures import percentile
from bench.writers import Pulse, Writer, missing
from kvstore.supervisor import LocalCluster

P50_LIMIT_MS = 800
P99_LIMIT_MS = 1500

_CALM_S = (0.1, 0.6)
"""All replicas being ready, the next kill comes after a random time: it must not keep step with the heartbeats."""


class Failovers(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `outages_ms`: for each kill the longest time without a successful write of any client, from
    the last success before the kill until all replicas are ready again."""

    nodes: int
    clients: int
    outages_ms: list[float]
    acknowledged: int
    unknown: int
    """Writes that may have been done or not: their clients were told so."""
    refused: int
    """Writes that no replica took."""
    lost: list[str]
    """Keys of acknowledged writes that could not be read back."""

    @property
    def p50_ms(self) -> float:
        """Half of the outages were shorter."""
        return percentile(self.outages_ms, 50)

    @property
    def p99_ms(self) -> float:
        """One outage in a hundred was longer."""
        return percentile(self.outages_ms, 99)

    @property
    def within_limits(self) -> bool:
        """True when failovers are as short as promised with default settings."""
        return self.p50_ms <= P50_LIMIT_MS and self.p99_ms <= P99_LIMIT_MS


class Progress(msgspec.Struct, frozen=True):
    """Whom to tell how far it is."""

    killed: Callable[[float], None]
    """After each kill, with its outage in milliseconds."""
    read: Callable[[int], None]
    """For each acknowledged write that was looked up, with the number of all."""


async def measure(directory: Path, *, nodes: int, clients: int, kills: int, progress: Progress) -> Failovers:
    """Kill the leader of a new cluster in `directory` again and again while clients write.

    Raises ClusterError when the cluster does not come back by itself.
    """
    cluster = LocalCluster(nodes, directory)
    cluster.prepare()
    try:
        cluster.start()
        await cluster.wait_ready()
        pulse = Pulse(time.monotonic())
        writers = [Writer(f"client-{number}", _rotated(cluster.endpoints, number), pulse) for number in range(clients)]
        outages_ms = await _kill_leaders(cluster, writers, pulse, kills, progress)
        acknowledged = [key for writer in writers for key in writer.acknowledged]
        lost = await missing(cluster.endpoints, acknowledged, lambda: progress.read(len(acknowledged)))
    finally:
        await cluster.stop()
    return Failovers(
        nodes=nodes,
        clients=clients,
        outages_ms=outages_ms,
        acknowledged=len(acknowledged),
        unknown=sum(writer.unknown for writer in writers),
        refused=sum(writer.refused for writer in writers),
        lost=lost,
    )


def _rotated(endpoints: list[str], by: int) -> list[str]:
    """Each client begins at another replica."""
    by %= len(endpoints)
    return endpoints[by:] + endpoints[:by]


async def _kill_leaders(
    cluster: LocalCluster, writers: list[Writer], pulse: Pulse, kills: int, progress: Progress
) -> list[float]:
    outages_ms: list[float] = []
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        for _ in range(kills):
            await asyncio.sleep(random.uniform(*_CALM_S))
            await pulse.next()
            outages_ms.append(1000 * await _kill_leader(cluster, pulse))
            progress.killed(outages_ms[-1])
        for writer in writers:
            writer.stop()
    return outages_ms


async def _kill_leader(cluster: LocalCluster, pulse: Pulse) -> float:
    """Seconds without a successful write around the death of the leader, who is back when this returns."""
    leader = await cluster.wait_ready()
    pulse.restart()
    cluster.kill(leader)
    await cluster.wait_ready([name for name in cluster.places if name != leader])
    await pulse.next()
    cluster.start([leader])
    await cluster.wait_ready()
    return pulse.longest_s
