"""Overwrites at full speed: does the size of the files come to an end?"""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec

from bench.lifecycle.load import Load, puts
from bench.lifecycle.replicas import file_mb, resident_mb
from kvstore.testing.process_cluster import ProcessCluster

NODES = 3
GROWTH_LIMIT = 1.2
"""The files are bounded when the last third of the time sees them at most so much bigger than the middle one."""


class Sample(msgspec.Struct, frozen=True):
    """At `seconds` of the run: PUTs a second since the sample before, the file sizes of each replica (database and
    write-ahead log) and its resident memory, in MB."""

    seconds: float
    per_second: float
    file_mb: dict[str, tuple[float, float]]
    resident_mb: dict[str, float]

    def total_mb(self, name: str) -> float:
        """Both files of a replica."""
        return sum(self.file_mb[name])


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    keys: int
    value_bytes: int
    connections: int
    answered: int
    refused: int
    samples: list[Sample]

    def growth(self, name: str) -> float:
        """Greatest size of a replica's files in the last third of the time, by that in the middle third."""
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        return max(one.total_mb(name) for one in last) / max(one.total_mb(name) for one in middle)

    @property
    def worst_growth(self) -> float:
        """Of all replicas."""
        return max(map(self.growth, self.samples[0].file_mb))

    @property
    def within_limits(self) -> bool:
        """True when the files of all replicas are bounded."""
        return self.worst_growth <= GROWTH_LIMIT


async def measure(
    directory: Path,
    *,
    seconds: int,
    every_s: float,
    keys: int,
    value_bytes: int,
    connections: int,
    on_sample: Callable[[Sample], None],
) -> Soak:
    """Overwrite `keys` keys of a new cluster in `directory` by way of the leader, and look at it every so often. Raises
    BenchError or ClusterError."""
    cluster = ProcessCluster(NODES, directory)
    cluster.prepare()
    samples: list[Sample] = []
    try:
        cluster.start()
        leader = await cluster.wait_ready()
        load = Load([cluster.replicas[leader].url], connections, puts(keys, value_bytes, rounds=1 << 40))
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            began = before_s = time.monotonic()
            before = 0
            for number in count(1):
                await asyncio.sleep(began + number * every_s - time.monotonic())
                now, answered = time.monotonic(), load.answered
                load.take_latencies_ms()
                sample = _look(cluster, now - began, (answered - before) / (now - before_s))
                samples.append(sample)
                on_sample(sample)
                before_s, before = now, answered
                if now - began >= seconds:
                    break
            load.stop()
    finally:
        await cluster.stop()
    return Soak(
        keys=keys,
        value_bytes=value_bytes,
        connections=connections,
        answered=load.answered,
        refused=load.refused,
        samples=samples,
    )


def _look(cluster: ProcessCluster, seconds: float, per_second: float) -> Sample:
    sizes = {name: file_mb(place) for name, place in cluster.replicas.items()}
    return Sample(seconds, per_second, sizes, resident_mb(cluster))
