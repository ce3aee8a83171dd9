"""A list of all keys while clients write: what it costs the replica that gives it, and those who write there."""

import asyncio
import http.client
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
from bench.lifecycle.grown import restored
from bench.lifecycle.load import Load, puts
from bench.lifecycle.replicas import resident_mb
from bench.processes import check_platform
from bench.report import figure_table, print_report, verdict
from bench.scratch import scratch_directory
from kvstore.testing.process_cluster import ProcessCluster

GROWTH_LIMIT_MB = 50.0
P99_RATIO_LIMIT = 2.0
KEPT_UP = 0.95
CONNECTIONS = 16
WRITTEN_KEYS = 1000
WARM_UP_S = 2.0
START_TIMEOUT_S = 300.0
LOOK_S = 0.05
RECEIVE_BYTES = 1 << 18

LIST = typer.Typer()


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One list. `wrong`: what is not as it should be: keys in order, each once, all of one revision."""

    seconds: float
    first_s: float
    """Until its first byte."""
    keys: int
    megabytes: float
    wrong: str


class Lists(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Memory is in MB, of the replica that is asked, which leads. The PUTs go to it, too."""

    keys: int
    value_bytes: int
    per_second: float
    before_s: float
    before_ms: list[float]
    """Latencies of the PUTs without a list, for so long."""
    during_ms: list[float]
    lists: list[Listed]
    before_mb: float
    most_mb: float
    refused: int

    @property
    def growth_mb(self) -> float:
        """While lists were given, at most."""
        return self.most_mb - self.before_mb

    @property
    def ratio(self) -> float:
        """Of the p99 of PUTs, during by before."""
        return percentile(self.during_ms, 99) / percentile(self.before_ms, 99)

    @property
    def kept_up(self) -> bool:
        """True when the PUTs were no burden before: else the ratio shows nothing."""
        return len(self.before_ms) >= KEPT_UP * self.per_second * self.before_s

    @property
    def sound(self) -> bool:
        """True when every list had all keys, as of one revision."""
        return all(not each.wrong and each.keys == self.lists[0].keys for each in self.lists)

    @property
    def within_limits(self) -> bool:
        """True when others notice as little as promised."""
        small = self.growth_mb <= GROWTH_LIMIT_MB and self.ratio <= P99_RATIO_LIMIT
        return small and self.sound and self.kept_up and not self.refused


class _Line(msgspec.Struct):
    """The part of a line that is looked at; the last one has a count instead."""

    key: str | None = None
    revision: int = 0


@LIST.command("list")
def list_(
    *,
    keys: Annotated[int, typer.Option(min=1, help="How many there are.")] = 1_000_000,
    value_bytes: Annotated[int, typer.Option(min=1, max=1 << 20, help="Length of each value.")] = 100,
    rate: Annotated[float, typer.Option(min=1, help="PUTs a second meanwhile.")] = 500.0,
    lists: Annotated[int, typer.Option(min=1, help="How many lists, one after the other.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long PUTs are measured before.")] = 15.0,
    json: Json = None,
) -> None:
    """List a million keys as NDJSON from one replica while clients write: its memory, and what writers notice."""
    check_platform()
    console = Console(stderr=True, highlight=False)
    with scratch_directory() as directory:
        found = run(
            measure(
                directory,
                keys=keys,
                value_bytes=value_bytes,
                rate=rate,
                lists=lists,
                seconds=seconds,
                say=lambda text: console.print(text, style="dim"),
            )
        )
    write_json(json, found)
    print_report(list_report(found))
    if not found.sound:
        raise BenchError("a list was not all keys as of one revision: please report it")
    raise typer.Exit(not found.within_limits)


async def measure(
    directory: Path,
    *,
    keys: int,
    value_bytes: int,
    rate: float,
    lists: int,
    seconds: float,
    say: Callable[[str], None],
) -> Lists:
    """In a new cluster in `directory`. `say` is told what goes on. Raises BenchError or ClusterError."""
    say(f"making {keys:,} keys")
    cluster = await restored(directory / "cluster", keys, value_bytes)
    try:
        say("starting")
        cluster.start()
        leader = await cluster.wait_ready(timeout_s=START_TIMEOUT_S)
        url = cluster.replicas[leader].url
        requests = puts(WRITTEN_KEYS, value_bytes, prefix="w", rounds=1 << 40)
        load = Load([url], CONNECTIONS, requests, rate)
        most_mb = [0.0]
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            await asyncio.sleep(max(WARM_UP_S, 2 * WRITTEN_KEYS / rate))  # until all of these keys are there
            load.take_latencies_ms()
            say(f"writing for {seconds:g} s")
            await asyncio.sleep(seconds)
            before_ms, before_mb = load.take_latencies_ms(), resident_mb(cluster, [leader])[leader]
            watching = group.create_task(_watch(cluster, leader, most_mb))
            answers = []
            for number in range(lists):
                say(f"list {number + 1} of {lists}")
                answers.append(await asyncio.to_thread(_get, url))
            during_ms = load.take_latencies_ms()
            watching.cancel()
            load.stop()
    finally:
        await cluster.stop()
    if min(len(before_ms), len(during_ms)) < 2:
        raise BenchError("nothing was written: the load of this machine is too high to measure anything")
    return Lists(
        keys=keys,
        value_bytes=value_bytes,
        per_second=rate,
        before_s=seconds,
        before_ms=before_ms,
        during_ms=during_ms,
        lists=[looked_into(answer) for answer in answers],
        before_mb=before_mb,
        most_mb=most_mb[0],
        refused=load.refused,
    )


class Answer(msgspec.Struct, frozen=True):
    """A whole list, as it came."""

    seconds: float
    first_s: float
    revision: int
    parts: list[bytes]


def _get(url: str) -> Answer:
    """In a thread of its own: what is received is only kept, so that the load beside it is not held up."""
    parsed = URL(url)
    connection = http.client.HTTPConnection(parsed.host or "", parsed.port)
    began = time.perf_counter()
    connection.request("GET", "/kv/", headers={"Accept": "application/x-ndjson"})
    response = connection.getresponse()
    if response.status != 200:
        raise BenchError(f"the list was answered {response.status}: {response.read(500)!r}")
    first_s = time.perf_counter() - began
    parts = []
    while part := response.read(RECEIVE_BYTES):
        parts.append(part)
    seconds = time.perf_counter() - began
    connection.close()
    return Answer(seconds, first_s, int(response.headers["KV-Revision"]), parts)


def looked_into(answer: Answer) -> Listed:
    """Whether a list is as it should be."""
    decode = msgspec.json.Decoder(_Line).decode
    content = b"".join(answer.parts)
    count, before, wrong = 0, "", ""
    for line in map(decode, content.splitlines()):
        if line.key is None:
            continue
        count += 1
        if line.key <= before:
            wrong = f"{line.key} comes behind {before}"
        if line.revision > answer.revision:
            wrong = f"{line.key} is of revision {line.revision}, the list of {answer.revision}"
        before = line.key
    return Listed(seconds=answer.seconds, first_s=answer.first_s, keys=count, megabytes=len(content) / 1e6, wrong=wrong)


async def _watch(cluster: ProcessCluster, name: str, most_mb: list[float]) -> None:
    while True:
        most_mb[0] = max(most_mb[0], resident_mb(cluster, [name])[name])
        await asyncio.sleep(LOOK_S)


def list_report(found: Lists) -> RenderableType:
    """The lists, and what writers and the replica noticed of them."""
    table = figure_table(f"writers, {found.per_second:,.0f} PUT/s", "PUTs", "p50 ms", "p99 ms", "max ms")
    for name, times_ms in (("before", found.before_ms), ("during", found.during_ms)):
        shown = (percentile(times_ms, 50), percentile(times_ms, 99), max(times_ms))
        table.add_row(name, f"{len(times_ms):,}", *(f"{time_ms:.1f}" for time_ms in shown))
    first = found.lists[0]
    wrong = [each.wrong for each in found.lists if each.wrong]
    return Group(
        f"{found.keys:,} keys of {found.value_bytes} bytes and {first.keys - found.keys:,} that are written: "
        f"{first.megabytes:.0f} MB in {', '.join(f'{each.seconds:.1f}' for each in found.lists)} s, the first byte "
        f"after {1000 * max(each.first_s for each in found.lists):.0f} ms at most",
        table,
        f"the replica had {found.before_mb:.0f} MB before, and at most {found.growth_mb:+.1f} MB meanwhile; "
        f"{found.refused} PUTs refused",
        *wrong,
        *(
            []
            if found.kept_up
            else ["[red]void[/red]: PUTs did not keep up before the lists: fewer of them, or more cores"]
        ),
        verdict("all keys, as of one revision", met=found.sound),
        verdict(f"growth <= {GROWTH_LIMIT_MB:.0f} MB", met=found.growth_mb <= GROWTH_LIMIT_MB),
        verdict(f"p99 during <= {P99_RATIO_LIMIT:g} x before ({found.ratio:.2f})", met=found.ratio <= P99_RATIO_LIMIT),
    )
