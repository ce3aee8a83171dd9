"""`python -m tests.torture watch`."""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import kill_leader, started, target_of
from bench.command import Json, figure_table, finish, run, say, scratch_directory, verdict
from bench.errors import BenchError
from bench.figures import percentile
from bench.load.options import address_of
from bench.processes import check_platform
from kvstore.client import Client, ClientError
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.command import first_lines
from tests.torture.watching.events import Observations, WatchVerdict, delays_ms, judge
from tests.torture.watching.watchers import WatcherOptions

P99_LIMIT_MS = 50.0
PREFIX = "w/"
KEYS = 1000
WRITERS = 16
VALUE_BYTES = 50
SAMPLED = 100
"""Approximate number of watchers whose receptions are timed."""
SETTLE_S = 2.0
POLL_S = 0.05
END_S = 60.0

WATCH = typer.Typer()


class WatchDelays(msgspec.Struct, frozen=True, kw_only=True):
    """Times from the answer of a PUT to its event, without any kill."""

    per_second: float
    """PUTs per second."""
    p50_ms: float
    p99_ms: float
    max_ms: float


class WatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Before the kills all watchers and writers use the leader, after the kills any replica."""

    watchers: int
    rate: float
    kills: int
    acknowledged: int
    failed: int
    """PUTs that were refused or have an unknown outcome."""
    resumed: int
    before: WatchDelays
    after: WatchDelays | None
    verdict: WatchVerdict
    differing: list[str]
    """Keys whose final record differs from their last event."""

    @property
    def correct(self) -> bool:
        """Whether every watcher received every change exactly once and in order."""
        return self.verdict.good and not self.differing


@WATCH.command()
def watch(
    *,
    watchers: Annotated[int, typer.Option(min=1, max=5000, help="Number of watchers.")] = 1000,
    rate: Annotated[float, typer.Option(min=1, help="PUTs per second.")] = 1000.0,
    kills: Annotated[int, typer.Option(min=0, help="Number of kills of the leader.")] = 10,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="Length of the measurements before and after the kills.")
    ] = 10.0,
    json: Json = None,
) -> None:
    """Run a thousand watchers while leaders are killed; each must receive every change once and in order."""
    check_platform()
    with scratch_directory() as directory:
        result = run(measure(directory, watchers=watchers, rate=rate, kills=kills, seconds=seconds, say=say))
        in_time = result.before.p99_ms <= P99_LIMIT_MS
        finish(json, result, watch_report(result), within_limits=in_time or not result.correct)
        if not result.correct:
            raise BenchError("watchers did not receive every change once and in order: please report this bug")


class PacedWriters:
    """Clients that put keys in turn at even intervals, at the leader until a request fails."""

    def __init__(self, endpoints: list[str], rate: float) -> None:
        self._endpoints = endpoints
        self._interval_s = WRITERS / rate
        self._numbers = itertools.count()
        self.stopping = False
        self.acknowledged: dict[int, tuple[str, str]] = {}
        """Key and value by revision."""
        self.answered_ns: dict[int, int] = {}
        """Time of the answer by revision."""
        self.failed = 0

    async def run(self, number: int) -> None:
        """Run one client until `stopping` is set."""
        due = time.monotonic() + self._interval_s * number / WRITERS
        async with Client(self._endpoints, exactly_once=False) as client:
            while not self.stopping:
                await asyncio.sleep(due - time.monotonic())
                due = max(due + self._interval_s, time.monotonic())
                each = next(self._numbers)
                key, value = f"{PREFIX}{each % KEYS}", f"{each:0{VALUE_BYTES}}"
                try:
                    revision = (await client.put(key, value.encode())).revision
                except ClientError:
                    self.failed += 1
                else:
                    self.answered_ns[revision] = time.monotonic_ns()
                    self.acknowledged[revision] = key, value


async def measure(
    directory: Path,
    *,
    watchers: int,
    rate: float,
    kills: int,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> WatchResult:
    """Watch a new cluster. Raises BenchError or ClusterError."""
    async with started(directory / "cluster") as cluster:
        leader = (await target_of(cluster)).leader
        urls = [leader, *(url for url in cluster.endpoints if url != leader)]
        process = await _start_watchers(urls, watchers)
        try:
            writers = PacedWriters(urls, rate)
            async with asyncio.TaskGroup() as group:
                for number in range(WRITERS):
                    group.create_task(writers.run(number))
                await asyncio.sleep(SETTLE_S)
                say(f"writing for {seconds:g} s")
                before = await _interval(seconds, writers)
                after = None
                if kills:
                    await asyncio.sleep(SETTLE_S)  # until the events of the interval have arrived
                    for number in range(kills):
                        await kill_leader(cluster)
                        say(f"kill {number + 1} of {kills}: {len(writers.acknowledged):,} PUTs acknowledged")
                    await asyncio.sleep(SETTLE_S)
                    say(f"writing for {seconds:g} s")
                    after = await _interval(seconds, writers)
                writers.stopping = True
            seen = await _observations(process, max(writers.acknowledged))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        differing = await _differing(cluster, seen)
    return WatchResult(
        watchers=watchers,
        rate=rate,
        kills=kills,
        acknowledged=len(writers.acknowledged),
        failed=writers.failed,
        resumed=seen.resumed,
        before=_delays(seen, writers, *before),
        after=None if after is None else _delays(seen, writers, *after),
        verdict=judge(writers.acknowledged, seen),
        differing=differing,
    )


async def _interval(seconds: float, writers: PacedWriters) -> tuple[int, int]:
    """Return the begin and the end of an interval. On a busy machine it lasts until some PUTs were acknowledged."""
    began_ns = time.monotonic_ns()
    enough = len(writers.acknowledged) + 10
    await asyncio.sleep(seconds)
    while len(writers.acknowledged) < enough:  # noqa: ASYNC110 - writers set no event
        await asyncio.sleep(POLL_S)
    return began_ns, time.monotonic_ns()


async def _start_watchers(urls: list[str], watchers: int) -> asyncio.subprocess.Process:
    """Start the process of the watchers and wait until all are served. Raises BenchError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.watching.watchers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C goes to this process, which ends the other one
    )
    options = WatcherOptions(
        addresses=list(map(address_of, urls)), watchers=watchers, prefix=PREFIX, sampled=max(1, watchers // SAMPLED)
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write(msgspec.json.encode(options) + b"\n")
    if await process.stdout.readline() != b"ready\n":
        raise BenchError("the watchers could not start: the output of their process is above")
    return process


async def _observations(process: asyncio.subprocess.Process, last: int) -> Observations:
    """Return the observations of the watchers up to the revision `last`. Raises BenchError."""
    async with asyncio.timeout(END_S):
        output, _ = await process.communicate(b"%d\n" % last)
    if process.returncode:
        raise BenchError("the watchers failed: the output of their process is above")
    return msgspec.msgpack.decode(output, type=Observations)


async def _differing(cluster: ProcessCluster, seen: Observations) -> list[str]:
    """Return keys whose record differs from their last event; the cluster has no other keys."""
    last: dict[str, tuple[int, str | None]] = {}
    for event in sorted((event for chunk in seen.chunks for event in chunk.events), key=lambda each: each.revision):
        last[event.key] = event.revision, event.value
    held: dict[str, tuple[int, str | None]] = {}
    async with Client(cluster.endpoints) as client:
        async for found in client.list():
            if found.record is not None:
                held[found.key.decode()] = found.record.revision, found.record.value.decode()
    return sorted(key for key in last.keys() | held.keys() if last.get(key) != held.get(key))


def _delays(seen: Observations, writers: PacedWriters, began_ns: int, ended_ns: int) -> WatchDelays:
    delays = delays_ms(seen, writers.answered_ns, began_ns, ended_ns)
    if len(delays) < 2:
        raise BenchError("no PUT was acknowledged in a whole interval: check that the machine is otherwise idle")
    puts = sum(began_ns <= at_ns < ended_ns for at_ns in writers.answered_ns.values())
    per_second = puts / (ended_ns - began_ns) * 1e9
    p50_ms, p99_ms = percentile(delays, 50), percentile(delays, 99)
    return WatchDelays(per_second=per_second, p50_ms=p50_ms, p99_ms=p99_ms, max_ms=max(delays))


def watch_report(result: WatchResult) -> RenderableType:
    """Return the delays of events, and the verdict."""
    table = figure_table("from answer to event", "PUT/s", "p50 ms", "p99 ms", "max ms")
    for name, phase in (
        ("at the leader, before the kills", result.before),
        ("at any replica, after the kills", result.after),
    ):
        if phase is not None:
            times = (f"{time_ms:.1f}" for time_ms in (phase.p50_ms, phase.p99_ms, phase.max_ms))
            table.add_row(name, f"{phase.per_second:,.0f}", *times)
    found = result.verdict
    return Group(
        table,
        f"{result.watchers:,} watchers, {result.kills} kills of the leader, {result.resumed:,} watches resumed",
        f"{result.acknowledged:,} PUTs acknowledged, {result.failed} not; {found.changes:,} changes, "
        f"{found.events:,} events",
        f"{found.lost} lost, {found.doubled} duplicated, {found.disordered} out of order, {found.wrong} wrong; "
        f"{len(result.differing)} keys differ from their last event",
        *first_lines([*found.examples, *result.differing]),
        verdict("every change once and in order", met=result.correct),
        verdict(f"p99 before the kills <= {P99_LIMIT_MS:.0f} ms", met=result.before.p99_ms <= P99_LIMIT_MS),
    )
