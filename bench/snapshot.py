"""Latency of PUTs while a replica with an empty disk receives a large snapshot."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import fill_keys, repeated, replace_disk, resident_mb, started
from bench.command import Json, figure_table, finish, run, say, scratch_directory, verdict
from bench.errors import BenchError
from bench.load.generator import Generator, background_load
from bench.load.options import LoadOptions, Mix
from bench.load.recording import LatencySummary
from bench.processes import check_platform
from kvstore.testing.process_cluster import ProcessCluster

P99_RATIO_LIMIT = 2.0
CONNECTIONS = 16
WARM_UP_S = 2.0
TRANSFER_S = 1800.0
SAMPLE_S = 0.5
STATE_VALUE_BYTES = 10_000

SNAPSHOT = typer.Typer()


class WritePhase(msgspec.Struct, frozen=True):
    """Length of a phase and the latencies of its PUTs."""

    seconds: float
    latencies: LatencySummary


class SnapshotResult(msgspec.Struct, frozen=True, kw_only=True):
    """The phases of a run. `during` lasts from the start of the empty replica until it has caught up and votes."""

    mib: int
    rate: float | None
    before: WritePhase
    during: WritePhase
    after: WritePhase
    leaders: list[str]
    """The leader before, at the end of the snapshot, and after."""
    errors: int
    at_rest_mb: dict[str, float]
    """Resident memory of each replica before the snapshot."""
    max_mb: dict[str, float]
    """Largest resident memory of each replica during the snapshot."""

    @property
    def ratio(self) -> float:
        """p99 during the snapshot divided by the larger p99 of before and after."""
        return self.during.latencies.p99_ms / max(self.before.latencies.p99_ms, self.after.latencies.p99_ms)

    @property
    def within_limits(self) -> bool:
        """Whether p99 is within the limit, no PUT failed and the leader did not change."""
        return self.ratio <= P99_RATIO_LIMIT and len(set(self.leaders)) == 1 and not self.errors


@SNAPSHOT.command()
def snapshot(
    mib: Annotated[int, typer.Option(min=1, help="Size of the state in MiB.")] = 1024,
    rate: Annotated[float, typer.Option(min=0, help="PUTs per second of all writers; 0 for full speed.")] = 200.0,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="Length of the phases before and after.")] = 30,
    json: Json = None,
) -> None:
    """Send a large snapshot to a replica with an empty disk while clients write; measure the latency of PUTs."""
    check_platform()
    with scratch_directory() as directory:
        result = run(measure(directory, mib=mib, rate=rate or None, seconds=seconds, say=say))
    finish(json, result, snapshot_report(result), within_limits=result.within_limits)


async def measure(
    directory: Path, *, mib: int, rate: float | None, seconds: int, say: Callable[[str], None]
) -> SnapshotResult:
    """Fill a new cluster and replace the disk of a follower under load. Raises BenchError or ClusterError."""
    async with started(directory / "cluster") as cluster:
        say(f"writing {mib} MiB")
        await fill_keys(cluster, max(1, mib * 2**20 // STATE_VALUE_BYTES), STATE_VALUE_BYTES)
        leader = await cluster.wait_ready()
        mix = Mix(keys=1000, prefix="w")
        options = LoadOptions(mix=mix, urls=[cluster.replicas[leader].url], connections=CONNECTIONS, rate=rate)
        async with background_load(options) as load:
            await asyncio.sleep(WARM_UP_S)
            at_rest_mb = resident_mb(cluster)
            say(f"writers alone for {seconds} s")
            before = await _phase(load, asyncio.sleep(seconds))
            follower = next(name for name in cluster.replicas if name != leader)
            during, max_mb = await _send_snapshot(cluster, follower, load, say)
            leaders = [leader, await cluster.wait_ready([])]
            say(f"writers alone for {seconds} s")
            after = await _phase(load, asyncio.sleep(seconds))
            leaders.append(await cluster.wait_ready([]))
        recording = load.recording
        refused = sum(count for status, count in recording.statuses.items() if not 200 <= status < 300)
    return SnapshotResult(
        mib=mib,
        rate=rate,
        before=before,
        during=during,
        after=after,
        leaders=leaders,
        errors=recording.lost + refused,
        at_rest_mb=at_rest_mb,
        max_mb=max_mb,
    )


async def _send_snapshot(
    cluster: ProcessCluster, name: str, load: Generator, say: Callable[[str], None]
) -> tuple[WritePhase, dict[str, float]]:
    say(f"replacing the disk of {name}")
    await cluster.stop([name])
    await replace_disk(cluster, name)
    say(f"{name} receives the snapshot")
    max_mb: dict[str, float] = {}

    def sample() -> None:
        max_mb.update({each: max(mb, max_mb.get(each, 0.0)) for each, mb in resident_mb(cluster).items()})

    async with repeated(sample, SAMPLE_S):
        cluster.start([name])
        during = await _phase(load, cluster.wait_joined(name, timeout_s=TRANSFER_S))
    return during, max_mb


async def _phase(load: Generator, activity: Awaitable[object]) -> WritePhase:
    load.recording.take_latencies()
    began = time.monotonic()
    await activity
    latencies = load.recording.take_latencies()
    if latencies is None:
        raise BenchError("no PUT was answered in a whole phase: check that the machine is otherwise idle")
    return WritePhase(time.monotonic() - began, latencies)


def snapshot_report(result: SnapshotResult) -> RenderableType:
    """Return the latencies of each phase and the memory of the replicas."""
    speed = "full speed" if result.rate is None else f"{result.rate:.0f} PUT/s"
    table = figure_table(f"writers, {speed}", "s", "PUT/s", "p50 ms", "p99 ms", "max ms")
    for name, phase in (("before", result.before), ("during", result.during), ("after", result.after)):
        latencies = phase.latencies
        times = (f"{value:.1f}" for value in (latencies.p50_ms, latencies.p99_ms, latencies.max_ms))
        table.add_row(name, f"{phase.seconds:.1f}", f"{latencies.count / phase.seconds:,.0f}", *times)
    memory = figure_table("resident MB", *result.at_rest_mb)
    for name, megabytes in (("before", result.at_rest_mb), ("largest during", result.max_mb)):
        memory.add_row(name, *(f"{megabytes.get(replica, 0.0):.0f}" for replica in result.at_rest_mb))
    return Group(
        f"{result.mib} MiB of state in {result.during.seconds:.1f} s, {result.mib / result.during.seconds:.1f} MiB/s",
        table,
        memory,
        f"leader {', '.join(dict.fromkeys(result.leaders))}; {result.errors} PUTs failed",
        verdict(
            f"p99 during <= {P99_RATIO_LIMIT} x p99 without ({result.ratio:.2f}), one leader, no PUT failed",
            met=result.within_limits,
        ),
    )
