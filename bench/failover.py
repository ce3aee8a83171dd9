"""Time without a successful write after the leader is killed, and whether acknowledged writes survive."""

import asyncio
import random
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import started
from bench.command import Json, figure_table, finish, progress_bar, run, scratch_directory, verdict
from bench.errors import BenchError
from bench.figures import percentile
from bench.plot import Plot, check_plot, draw_lines
from kvstore.client import Client, Unavailable, UnknownOutcome
from kvstore.testing.process_cluster import ProcessCluster

P50_LIMIT_MS = 800
P99_LIMIT_MS = 1500
BIN_S = 0.1
BEFORE_S, AFTER_S = 1.0, 2.0
READERS = 32
PAUSE_S = (0.1, 0.6)
"""Range of the random time between recovery and the next kill, so that kills do not follow the heartbeats."""

FAILOVER = typer.Typer()


class FailoverResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outages of a run and the outcomes of its writes."""

    nodes: int
    clients: int
    outages_ms: list[float]
    """For each kill, the longest time in which no client's write succeeded until all replicas were ready again."""
    acknowledged: int
    unknown: int
    refused: int
    lost: list[str]
    """Keys of acknowledged writes that could not be read back."""
    around: list[float]
    """Writes per second in each BIN_S from BEFORE_S before a kill to AFTER_S after the kill, the mean of all kills."""

    @property
    def within_limits(self) -> bool:
        """Whether the outages are within the limits for default settings."""
        return percentile(self.outages_ms, 50) <= P50_LIMIT_MS and percentile(self.outages_ms, 99) <= P99_LIMIT_MS


class WritePulse:
    """Times of successful writes of all clients, in seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._event = asyncio.Event()
        self.times = array("d")
        self.longest_s = 0.0
        """Longest time between two successful writes since `restart`, the last write before `restart` included."""

    def beat(self, now: float) -> None:
        """Record a successful write."""
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        self.times.append(now)
        self._event.set()

    def restart(self) -> None:
        """Reset `longest_s`."""
        self.longest_s = 0.0

    async def next(self) -> None:
        """Wait for the next successful write."""
        self._event.clear()
        await self._event.wait()


class SequentialWriter:
    """A client that writes a new key each time, so that no write hides the loss of an earlier one."""

    def __init__(self, name: str, endpoints: Sequence[str], pulse: WritePulse) -> None:
        self._name = name
        self._endpoints = endpoints
        self._pulse = pulse
        self.stopping = False
        self.acknowledged: list[str] = []
        """Keys of acknowledged writes; the value of each is its key."""
        self.unknown = 0
        self.refused = 0

    async def run(self) -> None:
        """Write until `stopping` is set."""
        number = 0
        async with Client(self._endpoints, exactly_once=False) as client:  # unknown outcomes are counted, not resolved
            while not self.stopping:
                number += 1
                key = f"{self._name}/{number}"
                try:
                    await client.put(key, key.encode())
                except UnknownOutcome:
                    self.unknown += 1
                except Unavailable:
                    self.refused += 1
                else:
                    self._pulse.beat(time.monotonic())
                    self.acknowledged.append(key)


@FAILOVER.command()
def failover(
    kills: Annotated[int, typer.Option(min=2, help="Number of kills of the leader.")] = 50,
    nodes: Annotated[int, typer.Option(min=3, max=15, help="Number of replicas.")] = 3,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Number of clients that write.")] = 4,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Kill the leader with SIGKILL while clients write; measure the time without a write, and lost writes."""
    check_plot(plot)
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("kills", total=kills)

        def show(outage_ms: float) -> None:
            bar.update(task, advance=1, description=f"kills, last outage {outage_ms:.0f} ms")

        result = run(measure(directory, nodes=nodes, clients=clients, kills=kills, on_kill=show))
        bar.stop()
        points = [(BIN_S * (number + 0.5) - BEFORE_S, rate) for number, rate in enumerate(result.around)]
        draw_lines(plot, f"Mean of {kills} kills of the leader", "s after the kill", "writes/s", {"": points})
        finish(json, result, failover_report(result), within_limits=result.within_limits or bool(result.lost))
        if result.lost:
            raise BenchError(f"{len(result.lost)} acknowledged writes are lost: please report this bug")


async def measure(
    directory: Path, *, nodes: int, clients: int, kills: int, on_kill: Callable[[float], None] = lambda _: None
) -> FailoverResult:
    """Kill the leader of a new cluster again and again while clients write. Raises ClusterError."""
    async with started(directory / "cluster", nodes) as cluster:
        pulse = WritePulse(time.monotonic())
        urls = cluster.endpoints
        writers = [
            SequentialWriter(f"client-{number}", urls[number % nodes :] + urls[: number % nodes], pulse)
            for number in range(clients)
        ]
        outages_ms: list[float] = []
        kill_times: list[float] = []
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run())
            for _ in range(kills):
                await asyncio.sleep(random.uniform(*PAUSE_S))
                await pulse.next()
                killed_at, outage_s = await _kill_leader(cluster, pulse)
                kill_times.append(killed_at)
                outages_ms.append(1000 * outage_s)
                on_kill(outages_ms[-1])
            for writer in writers:
                writer.stopping = True
        acknowledged = [key for writer in writers for key in writer.acknowledged]
        lost = await missing(urls, acknowledged)
    return FailoverResult(
        nodes=nodes,
        clients=clients,
        outages_ms=outages_ms,
        acknowledged=len(acknowledged),
        unknown=sum(writer.unknown for writer in writers),
        refused=sum(writer.refused for writer in writers),
        lost=lost,
        around=around(pulse.times, kill_times),
    )


async def _kill_leader(cluster: ProcessCluster, pulse: WritePulse) -> tuple[float, float]:
    """Kill the leader and bring it back; return the time of the kill and the longest time without a write, in s."""
    leader = await cluster.wait_ready()
    pulse.restart()
    killed_at = time.monotonic()
    cluster.kill(leader)
    await cluster.wait_ready([name for name in cluster.replicas if name != leader])
    await pulse.next()
    cluster.start([leader])
    await cluster.wait_ready()
    return killed_at, pulse.longest_s


async def missing(endpoints: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the keys that cannot be read back with their value, which is the key."""
    remaining = iter(keys)
    lost: list[str] = []

    async def read(client: Client) -> None:
        for key in remaining:
            record = await client.get(key)
            if record is None or record.value != key.encode():
                lost.append(key)

    async with Client(endpoints) as client, asyncio.TaskGroup() as readers:
        for _ in range(READERS):
            readers.create_task(read(client))
    return lost


def around(times: Sequence[float], kills: Sequence[float]) -> list[float]:
    """Return `FailoverResult.around` for the sorted times of writes and the times of kills."""
    edges = [number * BIN_S - BEFORE_S for number in range(round((BEFORE_S + AFTER_S) / BIN_S) + 1)]
    totals = [0] * (len(edges) - 1)
    for kill in kills:
        indexes = [bisect_left(times, kill + edge) for edge in edges]
        totals = [total + end - begin for total, (begin, end) in zip(totals, pairwise(indexes), strict=True)]
    return [total / BIN_S / len(kills) for total in totals]


def failover_report(result: FailoverResult) -> RenderableType:
    """Return the outages, the throughput around a kill, and the outcomes of the writes."""
    outages = figure_table("without a successful write", "p50 ms", "p99 ms", "max ms")
    times = (percentile(result.outages_ms, 50), percentile(result.outages_ms, 99), max(result.outages_ms))
    outages.add_row(f"{len(result.outages_ms)} kills of the leader", *(f"{each:.0f}" for each in times))
    rates = figure_table("seconds after the kill", "writes/s")
    bins = round(0.5 / BIN_S)
    for first in range(0, len(result.around), bins):
        rate = sum(result.around[first : first + bins]) / bins
        begin = first * BIN_S - BEFORE_S
        rates.add_row(f"{begin:4.1f} to {begin + 0.5:4.1f}", f"{rate:,.0f}")
    lost = f"[red]{len(result.lost)} LOST[/red], first {result.lost[0]}" if result.lost else "0 lost"
    return Group(
        outages,
        rates,
        f"{result.nodes} replicas, {result.clients} clients: {result.acknowledged:,} writes acknowledged, {lost}; "
        f"{result.unknown} of unknown outcome, {result.refused} refused",
        verdict(f"p50 <= {P50_LIMIT_MS} ms and p99 <= {P99_LIMIT_MS} ms", met=result.within_limits),
    )
