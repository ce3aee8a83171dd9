"""How long a replica with much data takes to start, and what memory it has."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.lifecycle.grown import fill_log, restored
from bench.lifecycle.replicas import Start, resident_mb, restart

START_LIMIT_S = 10.0
RESIDENT_LIMIT_MB = 600.0
START_TIMEOUT_S = 300.0


class Restarts(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Memory is in MB, times in seconds from the start of the process until it is ready."""

    keys: int
    value_bytes: int
    prepared_s: float
    """What it took to make the data and to fill the log."""
    filled_mb: dict[str, float]
    """Resident memory of each replica under load."""
    one: list[Start]
    """Each time one replica was killed and started."""
    all: Start
    """All of them killed and started at once, until the last of them is ready."""
    restarted_mb: dict[str, float]

    @property
    def median_s(self) -> float:
        """Of the starts of one replica."""
        return statistics.median(start.seconds for start in self.one)

    @property
    def most_mb(self) -> float:
        """The greatest memory of any replica."""
        return max(*self.filled_mb.values(), *self.restarted_mb.values())

    @property
    def within_limits(self) -> bool:
        """True when a start is as quick, and replicas as small, as promised for a million keys of 100 bytes."""
        return self.median_s <= START_LIMIT_S and self.most_mb <= RESIDENT_LIMIT_MB


async def measure(directory: Path, *, keys: int, value_bytes: int, times: int, say: Callable[[str], None]) -> Restarts:
    """In a new cluster in `directory` kill one replica so many times, each time another one, then all. `say` is told
    what goes on. Raises BenchError or ClusterError."""
    began = time.monotonic()
    say(f"making {keys:,} keys")
    cluster = await restored(directory / "cluster", keys, value_bytes)
    names = list(cluster.replicas)
    try:
        say("starting")
        cluster.start()
        await cluster.wait_ready(timeout_s=START_TIMEOUT_S)
        say("filling the log")
        await fill_log(cluster, keys, value_bytes)
        prepared_s = time.monotonic() - began
        filled_mb = resident_mb(cluster)
        one = []
        for number in range(times):
            name = names[number % len(names)]
            say(f"kill {number + 1} of one replica")
            cluster.kill(name)
            await cluster.wait_ready([other for other in names if other != name])
            one.append(await restart(cluster, [name], START_TIMEOUT_S))
        say("kill of all")
        cluster.kill(*names)
        everyone = await restart(cluster, names, START_TIMEOUT_S)
        restarted_mb = resident_mb(cluster)
    finally:
        await cluster.stop()
    return Restarts(
        keys=keys,
        value_bytes=value_bytes,
        prepared_s=prepared_s,
        filled_mb=filled_mb,
        one=one,
        all=everyone,
        restarted_mb=restarted_mb,
    )
