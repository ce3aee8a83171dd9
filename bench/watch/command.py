"""`python -m bench watch`."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import repeated, resident_mb, started
from bench.command import Json, ValueBytes, figure_table, finish, run, say, scratch_directory, verdict
from bench.errors import BenchError
from bench.load.generator import Generator, background_load
from bench.load.options import LoadOptions, Mix, address_of
from bench.load.recording import LatencySummary
from bench.processes import check_platform
from bench.watch.readers import ReaderOptions
from kvstore.api.status import Status
from kvstore.client import Client
from kvstore.testing.process_cluster import POLL_S, ProcessCluster

P99_RATIO_LIMIT = 2.0
GROWTH_LIMIT_MB = 100.0
WARM_UP_S = 2.0
SETTLE_S = 5.0
"""Time after the watchers have left, before the memory is measured again."""
CATCH_UP_S = 500.0
SAMPLE_S = 0.1
HISTORY_CONNECTIONS = 64
HISTORY_KEYS = 1000
HISTORY_VALUE_BYTES = 100

WATCH = typer.Typer()


class WatchPhase(msgspec.Struct, frozen=True):
    """Length of a phase, the latencies of its PUTs, and the largest resident memory of the leader."""

    seconds: float
    latencies: LatencySummary
    resident_mb: float


class WatcherLoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The phases of a run: the same PUTs without and with watchers."""

    watchers: int
    behind: int
    bytes_per_s: int | None
    alone: WatchPhase
    meanwhile: WatchPhase
    caught_up_s: float | None
    """Time until all watchers had caught up; None if they did not have to."""
    disconnected: int
    """Watchers that the leader disconnected."""
    after_mb: float
    """Resident memory of the leader after the watchers have left."""
    elections: int
    """Elections during the run."""
    errors: int
    """PUTs that failed."""

    @property
    def ratio(self) -> float:
        """p99 with watchers divided by p99 without."""
        return self.meanwhile.latencies.p99_ms / self.alone.latencies.p99_ms

    @property
    def growth_mb(self) -> float:
        """Memory for the watchers: the largest resident memory with them, less the largest without."""
        return self.meanwhile.resident_mb - self.alone.resident_mb

    @property
    def limits(self) -> dict[str, bool]:
        """Whether each limit is met, by its description."""
        return {
            f"p99 with watchers <= {P99_RATIO_LIMIT} x p99 alone ({self.ratio:.2f})": self.ratio <= P99_RATIO_LIMIT,
            f"memory for watchers <= {GROWTH_LIMIT_MB:.0f} MB ({self.growth_mb:.0f} MB)": (
                self.growth_mb <= GROWTH_LIMIT_MB
            ),
            f"no election ({self.elections}), no PUT failed ({self.errors})": not (self.elections or self.errors),
        }


@WATCH.command()
def watch(
    *,
    watchers: Annotated[int, typer.Option(min=1, max=10_000, help="Number of watchers of all keys.")] = 60,
    behind: Annotated[int, typer.Option(min=0, max=90_000, help="Revisions that the watchers lack at first.")] = 60_000,
    read_rate: Annotated[
        int | None, typer.Option(min=0, help="Bytes per second that each watcher reads; 0 for none. [default: all]")
    ] = None,
    value_bytes: ValueBytes = 100,
    rate: Annotated[float, typer.Option(min=0, help="PUTs per second; 0 for one after the other.")] = 0.0,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="Length of the phase without watchers.")] = 10,
    json: Json = None,
) -> None:
    """Run watchers that are behind, slow or stopped; measure PUTs, memory and the time until all have caught up.

    The phase with watchers ends when all have caught up, or, if they are not behind or do not read at full speed, after
    the same time as the phase without watchers.
    """
    check_platform()
    load = LoadOptions(mix=Mix(keys=HISTORY_KEYS, value_bytes=value_bytes), urls=[], connections=1, rate=rate or None)
    with scratch_directory() as directory:
        result = run(
            measure(directory, load, watchers=watchers, behind=behind, bytes_per_s=read_rate, seconds=seconds, say=say)
        )
    finish(json, result, watch_report(result), within_limits=all(result.limits.values()))


async def measure(
    directory: Path,
    load: LoadOptions,
    *,
    watchers: int,
    behind: int,
    bytes_per_s: int | None,
    seconds: int,
    say: Callable[[str], None],
) -> WatcherLoadResult:
    """Run PUTs at the leader of a new cluster without watchers, then with them. Raises BenchError or ClusterError."""
    async with started(directory / "cluster") as cluster:
        leader = await cluster.wait_ready()
        url = cluster.replicas[leader].url
        await _write_history(url, behind, say)
        before = await _status(url)
        async with background_load(msgspec.structs.replace(load, urls=[url])) as generator:
            await asyncio.sleep(WARM_UP_S)
            say(f"writer alone for {seconds} s")
            alone = await _phase(cluster, leader, generator, asyncio.sleep(seconds))
            revision = (await _status(url)).revision
            options = ReaderOptions(
                address=address_of(url),
                watchers=watchers,
                from_revision=max(1, revision - behind),
                until_revision=revision,
                bytes_per_s=bytes_per_s,
            )
            catches_up = behind > 0 and bytes_per_s is None
            async with _readers(options) as process:
                say(f"{watchers:,} watchers, {behind:,} revisions behind")
                activity = _until_caught_up(process) if catches_up else asyncio.sleep(seconds)
                meanwhile = await _phase(cluster, leader, generator, activity)
                disconnected = await _end(process)
        await asyncio.sleep(SETTLE_S)
        after_mb = resident_mb(cluster, [leader])[leader]
        after = await _status(url)
        recording = generator.recording
    return WatcherLoadResult(
        watchers=watchers,
        behind=behind,
        bytes_per_s=bytes_per_s,
        alone=alone,
        meanwhile=meanwhile,
        caught_up_s=meanwhile.seconds if catches_up else None,
        disconnected=disconnected,
        after_mb=after_mb,
        elections=_round(after) - _round(before),
        errors=recording.lost + sum(count for status, count in recording.statuses.items() if not 200 <= status < 300),
    )


async def _write_history(url: str, revisions: int, say: Callable[[str], None]) -> None:
    if not revisions:
        return
    say(f"writing {revisions:,} revisions")
    mix = Mix(keys=revisions, value_bytes=HISTORY_VALUE_BYTES, prefix="history-")
    generator = Generator(LoadOptions(mix=mix, urls=[url], connections=HISTORY_CONNECTIONS))
    try:
        await asyncio.to_thread(generator.fill)
    finally:
        generator.close()


async def _status(url: str) -> Status:
    async with Client([url]) as client:
        return await client.status(url)


def _round(status: Status) -> int:
    """Return the round of the leader's ballot: each election has a higher one."""
    return int(status.ballot.partition(".")[0] or 0)


async def _phase(cluster: ProcessCluster, leader: str, generator: Generator, activity: Awaitable[object]) -> WatchPhase:
    largest = 0.0

    def sample() -> None:
        nonlocal largest
        largest = max(largest, *resident_mb(cluster, [leader]).values())

    generator.recording.take_latencies()
    began = time.monotonic()
    async with repeated(sample, SAMPLE_S):
        await activity
        seconds = time.monotonic() - began
        await _one_more_answer(generator)
    latencies = generator.recording.take_latencies()
    if latencies is None:
        raise BenchError("no PUT was answered in a whole phase: see the logs of the replicas, or raise --seconds")
    return WatchPhase(seconds, latencies, largest)


async def _one_more_answer(generator: Generator) -> None:
    """Wait until the PUT in flight is answered: its latency belongs to the phase."""
    recording = generator.recording

    def finished() -> int:
        return recording.lost + sum(dict(recording.statuses).values())

    before = finished()
    while True:
        if finished() != before:
            return
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def _readers(options: ReaderOptions) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield a process whose watchers have connected and begin to watch. Raises BenchError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.watch.readers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C goes to the benchmark, which ends the process
    )
    try:
        await _tell(process, msgspec.json.encode(options))
        await _hear(process)
        await _tell(process, b"")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_caught_up(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await _hear(process)
    except TimeoutError:
        raise BenchError(f"not every watcher had caught up within {CATCH_UP_S:.0f} s") from None


async def _end(process: asyncio.subprocess.Process) -> int:
    """End the watchers, and return the number of those that were disconnected."""
    await _tell(process, b"")
    last = await _hear(process)
    while not last.strip().isdigit():
        last = await _hear(process)
    return int(last)


async def _tell(process: asyncio.subprocess.Process, line: bytes) -> None:
    if process.stdin is None:
        raise TypeError("the process has no standard input")
    process.stdin.write(line + b"\n")
    await process.stdin.drain()


async def _hear(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        raise TypeError("the process has no standard output")
    line = await process.stdout.readline()
    if not line:
        raise BenchError("the process of the watchers has ended: raise the limit on open files (ulimit -n)")
    return line


def watch_report(result: WatcherLoadResult) -> RenderableType:
    """Return the latencies and the memory without and with watchers."""
    table = figure_table("PUTs at the leader", "s", "PUT/s", "p50 ms", "p99 ms", "max ms", "resident MB")
    for name, phase in (("alone", result.alone), ("with watchers", result.meanwhile)):
        latencies = phase.latencies
        times = (f"{value:.1f}" for value in (latencies.p50_ms, latencies.p99_ms, latencies.max_ms))
        speed = f"{latencies.count / phase.seconds:,.0f}"
        table.add_row(name, f"{phase.seconds:.1f}", speed, *times, f"{phase.resident_mb:.0f}")
    table.add_row("after", *[""] * 5, f"{result.after_mb:.0f}")
    speed = "full speed" if result.bytes_per_s is None else f"{result.bytes_per_s:,} bytes/s each"
    caught_up = "" if result.caught_up_s is None else f"; all had caught up after {result.caught_up_s:.1f} s"
    return Group(
        f"{result.watchers:,} watchers, {result.behind:,} revisions behind, reading at {speed}{caught_up}; "
        f"{result.disconnected} disconnected",
        table,
        *(verdict(limit, met=met) for limit, met in result.limits.items()),
    )
