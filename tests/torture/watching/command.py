"""`python -m tests.torture watch`."""

import asyncio
import itertools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from yarl import URL

from bench.command import Json, run, write_json
from bench.errors import BenchError
from bench.figures import percentile
from bench.lifecycle.load import put_request
from bench.lifecycle.replicas import kill_leader
from bench.processes import check_platform
from bench.report import figure_table, print_report, verdict
from bench.scratch import scratch_directory
from kvstore.client import Client
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.watching.events import Judgement, Seen, delays_ms, judge
from tests.torture.watching.watchers import Order

P99_LIMIT_MS = 50.0
PREFIX = "w/"
KEYS = 1000
CONNECTIONS = 16
VALUE_BYTES = 50
SAMPLED = 100
"""So many watchers' receptions are timed."""
ANSWER_S = 5.0
REPEAT_S = 0.05
SETTLE_S = 2.0
END_S = 60.0

_REVISION = re.compile(rb'\r\netag: *"(\d+)"', re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

WATCH = typer.Typer()


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """From the answer of a PUT to its event, without any fault. `puts`: so many of them."""

    puts: int
    per_second: float
    p50_ms: float
    p99_ms: float
    most_ms: float


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `before` the kills all watchers and writers are at the leader, after them anywhere."""

    watchers: int
    rate: float
    kills: int
    acknowledged: int
    failed: int
    """PUTs that were not answered, done or not."""
    resumed: int
    before: Delays
    after: Delays | None
    judgement: Judgement
    listed: list[str]
    """Keys that do not hold in the end what was told of them last."""

    @property
    def complete(self) -> bool:
        """True when every watcher has had every change, once and in order."""
        return self.judgement.good and not self.listed

    @property
    def within_limits(self) -> bool:
        """True when also events came as soon as promised."""
        return self.complete and self.before.p99_ms <= P99_LIMIT_MS


@WATCH.command()
def watch(
    *,
    watchers: Annotated[int, typer.Option(min=1, max=5000, help="How many.")] = 1000,
    rate: Annotated[float, typer.Option(min=1, help="PUTs a second.")] = 1000.0,
    kills: Annotated[int, typer.Option(min=0, help="How often the leader is killed.")] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long before the kills, and after.")] = 10.0,
    json: Json = None,
) -> None:
    """A thousand watchers of one replica while clients write and leaders die: is every change told once, in order?"""
    check_platform()
    with scratch_directory() as directory:
        console = Console(stderr=True, highlight=False)
        found = run(
            measure(
                directory,
                watchers=watchers,
                rate=rate,
                kills=kills,
                seconds=seconds,
                say=lambda text: console.print(text, style="dim"),
            )
        )
        write_json(json, found)
        print_report(watch_report(found))
        if not found.complete:
            raise BenchError("watchers were not told every change, once and in order: please report it")
    raise typer.Exit(not found.within_limits)


class Writers:
    """Connections that PUT at even intervals, at the first of `urls` until it fails them."""

    def __init__(self, urls: list[str], rate: float) -> None:
        self._urls = [URL(url) for url in urls]
        self._interval_s = CONNECTIONS / rate
        self._numbers = itertools.count()
        self._stopping = False
        self.acknowledged: dict[int, tuple[str, str]] = {}
        """Key and value by revision."""
        self.answered_ns: dict[int, int] = {}
        self.failed = 0

    def stop(self) -> None:
        """Let each end after the PUT that is under way."""
        self._stopping = True

    async def connection(self, number: int) -> None:
        """One of them."""
        urls = itertools.cycle(self._urls)
        due = time.monotonic() + self._interval_s * number / CONNECTIONS
        while not self._stopping:
            url = next(urls)
            try:
                reader, writer = await asyncio.open_connection(url.host, url.port)
            except OSError:
                await asyncio.sleep(REPEAT_S)
                continue
            try:
                while not self._stopping:
                    await asyncio.sleep(due - time.monotonic())
                    due = max(due + self._interval_s, time.monotonic())
                    await self._put(reader, writer)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.failed += 1
            finally:
                writer.close()

    async def _put(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        key, value = f"{PREFIX}{number % KEYS}", f"{number:0{VALUE_BYTES}}"
        async with asyncio.timeout(ANSWER_S):
            writer.write(put_request(key, value.encode()))
            head = await reader.readuntil(b"\r\n\r\n")
            at_ns = time.monotonic_ns()
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length is not None else 0)
        revision = _REVISION.search(head)
        if not head.startswith(b"HTTP/1.1 20") or revision is None:
            raise ConnectionError("refused: perhaps another replica takes it")
        self.acknowledged[int(revision[1])] = key, value
        self.answered_ns[int(revision[1])] = at_ns


async def measure(
    directory: Path,
    *,
    watchers: int,
    rate: float,
    kills: int,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> Watched:
    """In a new cluster of three in `directory`. `say` is told what goes on."""
    cluster = ProcessCluster(3, directory / "cluster")
    cluster.prepare()
    process = None
    try:
        cluster.start()
        leader = cluster.replicas[await cluster.wait_ready()].url
        urls = [leader, *(url for url in cluster.endpoints if url != leader)]
        say(f"{watchers} watchers begin")
        process = await _started(urls, watchers)
        writers = Writers(urls, rate)
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(writers.connection(number))
            await asyncio.sleep(SETTLE_S)
            say(f"writing for {seconds:g} s")
            before = await _phase(seconds)
            after = None
            if kills:
                await asyncio.sleep(SETTLE_S)  # what was counted has arrived
                for number in range(kills):
                    await kill_leader(cluster)
                    say(f"kill {number + 1} of {kills}: {len(writers.acknowledged):,} PUTs answered")
                await asyncio.sleep(SETTLE_S)
                say(f"writing for {seconds:g} s")
                after = await _phase(seconds)
            writers.stop()
        say("the watchers end")
        seen = await _told(process, max(writers.acknowledged))
        listed = await _differences(cluster, seen)
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        await cluster.stop()
    return Watched(
        watchers=watchers,
        rate=rate,
        kills=kills,
        acknowledged=len(writers.acknowledged),
        failed=writers.failed,
        resumed=seen.resumed,
        before=_delays(seen, writers, *before),
        after=None if after is None else _delays(seen, writers, *after),
        judgement=judge(writers.acknowledged, seen),
        listed=listed,
    )


async def _phase(seconds: float) -> tuple[int, int]:
    began_ns = time.monotonic_ns()
    await asyncio.sleep(seconds)
    return began_ns, time.monotonic_ns()


async def _started(urls: list[str], watchers: int) -> asyncio.subprocess.Process:
    """The process of the watchers, once all of them are served."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.watching.watchers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends its processes
    )
    order = Order(
        addresses=[(url.host or "", url.port or 0) for url in map(URL, urls)],
        watchers=watchers,
        prefix=PREFIX,
        sampled=max(1, watchers // SAMPLED),
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    if await process.stdout.readline() != b"ready\n":
        raise BenchError("the watchers could not begin: what their process said is above")
    return process


async def _told(process: asyncio.subprocess.Process, last: int) -> Seen:
    """What they saw, once they have come to the revision `last`."""
    async with asyncio.timeout(END_S):
        output, _ = await process.communicate(b"%d\n" % last)
    if process.returncode:
        raise BenchError("the watchers failed: what their process said is above")
    return msgspec.msgpack.decode(output, type=Seen)


async def _differences(cluster: ProcessCluster, seen: Seen) -> list[str]:
    """Keys that do not hold what the last event of each says; there are no others than those that are watched."""
    told: dict[str, tuple[int, str | None]] = {}
    for event in sorted((event for chunk in seen.chunks for event in chunk.events), key=lambda each: each.revision):
        told[event.key] = event.revision, event.value
    held: dict[str, tuple[int, str | None]] = {}
    async with Client(cluster.endpoints) as client:
        async for found in client.list():
            if found.record is not None:
                held[found.key.decode()] = found.record.revision, found.record.value.decode()
    return sorted(key for key in told.keys() | held.keys() if told.get(key) != held.get(key))


def _delays(seen: Seen, writers: Writers, began_ns: int, ended_ns: int) -> Delays:
    delays = delays_ms(seen, writers.answered_ns, began_ns, ended_ns)
    if len(delays) < 2:
        raise BenchError("nothing was written meanwhile: the load of this machine is too high to measure anything")
    puts = sum(began_ns <= at_ns < ended_ns for at_ns in writers.answered_ns.values())
    p50_ms, p99_ms = percentile(delays, 50), percentile(delays, 99)
    per_second = puts / (ended_ns - began_ns) * 1e9
    return Delays(puts=puts, per_second=per_second, p50_ms=p50_ms, p99_ms=p99_ms, most_ms=max(delays))


def watch_report(found: Watched) -> RenderableType:
    """How soon events came, and whether all of them did."""
    table = figure_table("from the answer to the event", "PUT/s", "p50 ms", "p99 ms", "max ms")
    phases = [("at the leader, before the kills", found.before), ("anywhere, after them", found.after)]
    for name, phase in phases:
        if phase is not None:
            times = (f"{time_ms:.1f}" for time_ms in (phase.p50_ms, phase.p99_ms, phase.most_ms))
            table.add_row(name, f"{phase.per_second:,.0f}", *times)
    judged = found.judgement
    return Group(
        table,
        f"{found.watchers:,} watchers, {found.kills} kills of the leader, {found.resumed:,} watches resumed elsewhere",
        f"{found.acknowledged:,} PUTs answered, {found.failed} not; {judged.changes:,} changes, "
        f"{judged.events:,} events",
        f"{judged.lost} lost, {judged.doubled} doubled, {judged.disorder} out of order, {judged.wrong} wrong; "
        f"{len(found.listed)} keys hold something else in the end",
        *(f"  {example}" for example in judged.examples),
        verdict("every change once and in order", met=found.complete),
        verdict(f"p99 <= {P99_LIMIT_MS:.0f} ms", met=found.before.p99_ms <= P99_LIMIT_MS),
    )
