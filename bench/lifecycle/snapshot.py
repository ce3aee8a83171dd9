"""What writers notice while a replica with an empty disk is given a large state."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bench.errors import BenchError
from bench.figures import percentile
from bench.lifecycle.grown import restored
from bench.lifecycle.load import Load, puts
from bench.lifecycle.replicas import resident_mb, wipe
from kvstore.testing.process_cluster import ProcessCluster

P99_RATIO_LIMIT = 2.0
KEYS, VALUE_BYTES = 1000, 100
"""Of the writers; the state has other keys."""
CONNECTIONS = 16
START_TIMEOUT_S = 300.0
TRANSFER_TIMEOUT_S = 1800.0
LOOK_S = 0.5
STATE_VALUE_BYTES = 10_000


class Phase(msgspec.Struct, frozen=True):
    """Answers of the writers in one stretch of time."""

    seconds: float
    puts: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `during` lasts from the start of the replica with an empty disk until it has the state and
    votes."""

    mib: int
    per_second: float | None
    before: Phase
    during: Phase
    after: Phase
    ballots: list[str]
    """Under which it was led before, at the end of the transfer, and after. A leader takes a new one where a voter is
    replaced."""
    refused: int
    at_rest_mb: dict[str, float]
    """Resident memory of each replica before."""
    most_mb: dict[str, float]
    """The greatest resident memory of each replica during the transfer."""

    @property
    def mib_per_s(self) -> float:
        """How fast the state went."""
        return self.mib / self.during.seconds

    @property
    def ratio(self) -> float:
        """The p99 during the transfer, by the greater of those without."""
        return self.during.p99_ms / max(self.before.p99_ms, self.after.p99_ms)

    @property
    def within_limits(self) -> bool:
        """True when writers notice as little as promised, and nobody else came to lead."""
        leaders = {ballot.partition(".")[2] for ballot in self.ballots}
        return self.ratio <= P99_RATIO_LIMIT and len(leaders) == 1 and not self.refused


async def measure(
    directory: Path, *, mib: int, per_second: float | None, seconds: int, say: Callable[[str], None]
) -> Transfer:
    """A new cluster with a state of so many MiB in `directory`, written to `per_second` (None: as fast as it goes),
    for so many seconds before and after a follower gets it anew. Raises BenchError or ClusterError."""
    say(f"making {mib} MiB")
    cluster = await restored(directory / "cluster", mib * 2**20 // STATE_VALUE_BYTES, STATE_VALUE_BYTES)
    try:
        say("starting")
        cluster.start()
        leader = await cluster.wait_ready(timeout_s=START_TIMEOUT_S)
        requests = puts(KEYS, VALUE_BYTES, prefix="w", rounds=1 << 40)
        load = Load([cluster.replicas[leader].url], CONNECTIONS, requests, per_second)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            found = await _act(cluster, leader, load, seconds, say)
            load.stop()
    finally:
        await cluster.stop()
    return msgspec.structs.replace(found, mib=mib, per_second=per_second, refused=load.refused)


async def _act(cluster: ProcessCluster, leader: str, load: Load, seconds: int, say: Callable[[str], None]) -> Transfer:
    await asyncio.sleep(2)  # what is compiled and cached on the way comes first
    ballots = [await _ballot(cluster)]
    at_rest_mb = resident_mb(cluster)
    say(f"writing for {seconds} s")
    before = await _phase(load, asyncio.sleep(seconds))
    name = next(other for other in cluster.replicas if other != leader)
    say(f"taking the disk of {name} away")
    await cluster.stop([name])
    await wipe(cluster, name)
    say(f"{name} is given the state")
    most_mb: dict[str, float] = {}
    watching = asyncio.create_task(_watch(cluster, most_mb))
    try:
        cluster.start([name])
        during = await _phase(load, cluster.wait_joined(name, timeout_s=TRANSFER_TIMEOUT_S))
    finally:
        watching.cancel()
    ballots.append(await _ballot(cluster))
    say(f"writing for {seconds} s")
    after = await _phase(load, asyncio.sleep(seconds))
    ballots.append(await _ballot(cluster))
    return Transfer(
        mib=0,
        per_second=None,
        before=before,
        during=during,
        after=after,
        ballots=ballots,
        refused=0,
        at_rest_mb=at_rest_mb,
        most_mb=most_mb,
    )


async def _phase(load: Load, lasting: Awaitable[object]) -> Phase:
    """What the writers see until `lasting` ends."""
    load.take_latencies_ms()
    began = time.monotonic()
    await lasting
    seconds = time.monotonic() - began
    latencies_ms = load.take_latencies_ms()
    if len(latencies_ms) < 2:
        raise BenchError("nothing was written: the load of this machine is too high to measure anything")
    p50_ms, p99_ms = (percentile(latencies_ms, percent) for percent in (50, 99))
    return Phase(seconds, len(latencies_ms), p50_ms, p99_ms, max(latencies_ms))


async def _ballot(cluster: ProcessCluster) -> str:
    leader = await cluster.wait_ready([])
    async with cluster.status_client() as client:
        return (await client.status(cluster.replicas[leader].url)).ballot


async def _watch(cluster: ProcessCluster, most_mb: dict[str, float]) -> None:
    while True:
        for name, now_mb in resident_mb(cluster).items():
            most_mb[name] = max(now_mb, most_mb.get(name, 0.0))
        await asyncio.sleep(LOOK_S)
