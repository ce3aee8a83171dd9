"""Start time and memory of a replica with much data."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import READY_S, fill_keys, resident_mb, started
from bench.command import Json, Keys, ValueBytes, figure_table, finish, run, say, scratch_directory, verdict
from bench.processes import check_platform, usage
from kvstore.testing.process_cluster import ProcessCluster

START_LIMIT_S = 10.0
RESIDENT_LIMIT_MB = 600.0

RESTART = typer.Typer()


class ReplicaStart(msgspec.Struct, frozen=True):
    """Seconds until the started replicas are ready, and the mean CPU time that each used."""

    seconds: float
    cpu_s: float


class RestartResult(msgspec.Struct, frozen=True, kw_only=True):
    """Starts of one replica and of all replicas, and the resident memory of each replica in MB."""

    keys: int
    value_bytes: int
    one: list[ReplicaStart]
    all: ReplicaStart
    filled_mb: dict[str, float]
    """Memory after the keys were written."""
    restarted_mb: dict[str, float]
    """Memory after all replicas were started."""

    @property
    def median_s(self) -> float:
        """Median start time of one replica."""
        return statistics.median(start.seconds for start in self.one)

    @property
    def max_mb(self) -> float:
        """Largest memory of any replica."""
        return max(*self.filled_mb.values(), *self.restarted_mb.values())

    @property
    def within_limits(self) -> bool:
        """Whether start time and memory are within the limits for a million values of 100 bytes."""
        return self.median_s <= START_LIMIT_S and self.max_mb <= RESIDENT_LIMIT_MB


@RESTART.command()
def restart(
    keys: Keys = 1_000_000,
    value_bytes: ValueBytes = 100,
    times: Annotated[int, typer.Option(min=1, help="Number of kills of one replica.")] = 3,
    json: Json = None,
) -> None:
    """Kill and start replicas with much data; measure the time until they are ready, and their memory."""
    check_platform()
    with scratch_directory() as directory:
        result = run(measure(directory, keys=keys, value_bytes=value_bytes, times=times, say=say))
    finish(json, result, restart_report(result), within_limits=result.within_limits)


async def measure(
    directory: Path, *, keys: int, value_bytes: int, times: int, say: Callable[[str], None]
) -> RestartResult:
    """Kill one replica at a time of a new cluster, in turn, `times` times, then all at once. Raises ClusterError."""
    async with started(directory / "cluster") as cluster:
        names = list(cluster.replicas)
        say(f"writing {keys:,} keys")
        await fill_keys(cluster, keys, value_bytes)
        filled_mb = resident_mb(cluster)
        one = []
        for number in range(times):
            name = names[number % len(names)]
            say(f"kill {number + 1} of {times}: {name}")
            cluster.kill(name)
            await cluster.wait_ready([other for other in names if other != name])
            one.append(await _start(cluster, [name]))
        say("kill of all replicas")
        cluster.kill(*names)
        everyone = await _start(cluster, names)
        restarted_mb = resident_mb(cluster)
    return RestartResult(
        keys=keys, value_bytes=value_bytes, one=one, all=everyone, filled_mb=filled_mb, restarted_mb=restarted_mb
    )


async def _start(cluster: ProcessCluster, names: list[str]) -> ReplicaStart:
    began = time.monotonic()
    cluster.start(names)
    await cluster.wait_ready(names, timeout_s=READY_S)
    return ReplicaStart(time.monotonic() - began, usage(map(cluster.process_id, names)).cpu_s / len(names))


def restart_report(result: RestartResult) -> RenderableType:
    """Return start times and memory."""
    starts = figure_table("started", "s until ready", "CPU s")
    for name, start in (*(("one replica", each) for each in result.one), ("all replicas", result.all)):
        starts.add_row(name, f"{start.seconds:.1f}", f"{start.cpu_s:.1f}")
    memory = figure_table("resident MB", *result.filled_mb)
    for name, megabytes in (("after writing", result.filled_mb), ("after the start", result.restarted_mb)):
        memory.add_row(name, *(f"{each:.0f}" for each in megabytes.values()))
    return Group(
        f"{result.keys:,} keys with values of {result.value_bytes} bytes",
        starts,
        memory,
        verdict(
            f"ready within {START_LIMIT_S:.0f} s (median {result.median_s:.1f} s)", met=result.median_s <= START_LIMIT_S
        ),
        verdict(f"resident <= {RESIDENT_LIMIT_MB:.0f} MB", met=result.max_mb <= RESIDENT_LIMIT_MB),
    )
