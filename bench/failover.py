"""How long a cluster takes no writes when its leader dies, and whether it keeps what it acknowledged."""

import asyncio
import random
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from bench.figures import percentile
from bench.writers import Pulse, Writer, missing
from kvstore.testing.process_cluster import ProcessCluster

P50_LIMIT_MS = 800
P99_LIMIT_MS = 1500

BIN_S = 0.1
BEFORE_S, AFTER_S = 1.0, 2.0

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
    kills_s: list[float]
    """When the leader was killed, in seconds of the run."""
    bins: list[int]
    """Writes that succeeded in each BIN_S of the run."""
    around: list[float]
    """Writes a second in each BIN_S around a kill, from BEFORE_S before it to AFTER_S after it: the mean of all."""

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
    cluster = ProcessCluster(nodes, directory)
    cluster.prepare()
    try:
        cluster.start()
        await cluster.wait_ready()
        pulse = Pulse(time.monotonic())
        writers = [Writer(f"client-{number}", _rotated(cluster.endpoints, number), pulse) for number in range(clients)]
        outages_ms, kills_s = await _kill_leaders(cluster, writers, pulse, kills, progress)
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
        kills_s=kills_s,
        bins=binned(pulse.times),
        around=around(pulse.times, kills_s),
    )


def binned(times_s: Sequence[float]) -> list[int]:
    """How many of these instants are in each BIN_S, from 0 to the last one."""
    counts = Counter(int(time_s / BIN_S) for time_s in times_s)
    return [counts[number] for number in range(max(counts, default=-1) + 1)]


def around(times_s: Sequence[float], kills_s: Sequence[float]) -> list[float]:
    """See `Failovers.around`. Instants stand in their order."""
    edges = [number * BIN_S - BEFORE_S for number in range(round((BEFORE_S + AFTER_S) / BIN_S) + 1)]
    totals = [0] * (len(edges) - 1)
    for kill_s in kills_s:
        places = [bisect_left(times_s, kill_s + edge) for edge in edges]
        totals = [total + end - begin for total, (begin, end) in zip(totals, pairwise(places), strict=True)]
    return [total / BIN_S / len(kills_s) for total in totals]


def _rotated(endpoints: list[str], by: int) -> list[str]:
    """Each client begins at another replica."""
    by %= len(endpoints)
    return endpoints[by:] + endpoints[:by]


async def _kill_leaders(
    cluster: ProcessCluster, writers: list[Writer], pulse: Pulse, kills: int, progress: Progress
) -> tuple[list[float], list[float]]:
    outages_ms: list[float] = []
    kills_s: list[float] = []
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        for _ in range(kills):
            await asyncio.sleep(random.uniform(*_CALM_S))
            await pulse.next()
            killed_s, outage_s = await _kill_leader(cluster, pulse)
            kills_s.append(killed_s)
            outages_ms.append(1000 * outage_s)
            progress.killed(outages_ms[-1])
        for writer in writers:
            writer.stop()
    return outages_ms, kills_s


async def _kill_leader(cluster: ProcessCluster, pulse: Pulse) -> tuple[float, float]:
    """When the leader was killed, and the seconds without a successful write around that; it is back on return."""
    leader = await cluster.wait_ready()
    pulse.restart()
    killed_s = pulse.elapsed_s(time.monotonic())
    cluster.kill(leader)
    await cluster.wait_ready([name for name in cluster.replicas if name != leader])
    await pulse.next()
    cluster.start([leader])
    await cluster.wait_ready()
    return killed_s, pulse.longest_s
