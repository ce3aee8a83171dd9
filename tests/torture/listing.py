"""Lists of all keys while clients write: consistency of each list, memory of the replica, latency of the writers."""

import asyncio
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from yarl import URL

from bench.cluster import fill_keys, repeated, resident_mb, started
from bench.command import Json, Keys, ValueBytes, figure_table, finish, run, say, scratch_directory, verdict
from bench.errors import BenchError
from bench.load.generator import background_load
from bench.load.options import LoadOptions, Mix
from bench.load.recording import LatencySummary
from bench.processes import check_platform

GROWTH_LIMIT_MB = 50.0
P99_RATIO_LIMIT = 2.0
CONNECTIONS = 16
WRITTEN_KEYS = 1000
SAMPLE_S = 0.05
RECEIVE_BYTES = 1 << 18

LIST = typer.Typer()


class ReceivedList(msgspec.Struct, frozen=True, kw_only=True):
    """Times and content of a received list."""

    seconds: float
    first_s: float
    """Time until the first byte."""
    keys: int
    megabytes: float
    wrong: str
    """Description of a key that is duplicate, out of order, or of a later revision; empty without one."""


class ListingResult(msgspec.Struct, frozen=True, kw_only=True):
    """The lists of a run, and the latencies and the memory of the replica that answered them, which leads."""

    keys: int
    value_bytes: int
    rate: float
    before: LatencySummary
    """Latencies of PUTs before the lists."""
    during: LatencySummary
    lists: list[ReceivedList]
    before_mb: float
    max_mb: float

    @property
    def growth_mb(self) -> float:
        """Growth of the replica's memory during the lists."""
        return self.max_mb - self.before_mb

    @property
    def ratio(self) -> float:
        """p99 of PUTs during the lists divided by p99 before the lists."""
        return self.during.p99_ms / self.before.p99_ms

    @property
    def sound(self) -> bool:
        """Whether every list contains all keys at one revision."""
        return all(not each.wrong and each.keys == self.lists[0].keys for each in self.lists)

    @property
    def within_limits(self) -> bool:
        """Whether memory and latency stay within their limits."""
        return self.growth_mb <= GROWTH_LIMIT_MB and self.ratio <= P99_RATIO_LIMIT


class _ListLine(msgspec.Struct):
    """The used fields of a line; the last line has no key."""

    key: str | None = None
    revision: int = 0


@LIST.command("list")
def list_(
    *,
    keys: Keys = 1_000_000,
    value_bytes: ValueBytes = 100,
    rate: Annotated[float, typer.Option(min=1, help="PUTs per second during the run.")] = 500.0,
    lists: Annotated[int, typer.Option(min=1, help="Number of lists, one after the other.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Length of the measurement before the lists.")] = 15.0,
    json: Json = None,
) -> None:
    """List a million keys as NDJSON while clients write; each list must contain all keys at one revision."""
    check_platform()
    with scratch_directory() as directory:
        measuring = measure(
            directory, keys=keys, value_bytes=value_bytes, rate=rate, lists=lists, seconds=seconds, say=say
        )
        result = run(measuring)
        finish(json, result, list_report(result), within_limits=result.within_limits or not result.sound)
        if not result.sound:
            raise BenchError("a list does not contain all keys at one revision: please report this bug")


async def measure(
    directory: Path,
    *,
    keys: int,
    value_bytes: int,
    rate: float,
    lists: int,
    seconds: float,
    say: Callable[[str], None],
) -> ListingResult:
    """List the keys of a new cluster. Raises BenchError or ClusterError."""
    async with started(directory / "cluster") as cluster:
        say(f"writing {keys:,} keys")
        await fill_keys(cluster, keys, value_bytes)
        await fill_keys(cluster, WRITTEN_KEYS, value_bytes, prefix="w")
        leader = await cluster.wait_ready()
        url = cluster.replicas[leader].url
        max_mb = 0.0

        def sample() -> None:
            nonlocal max_mb
            max_mb = max(max_mb, resident_mb(cluster, [leader])[leader])

        mix = Mix(keys=WRITTEN_KEYS, value_bytes=value_bytes, prefix="w")
        options = LoadOptions(mix=mix, urls=[url], connections=CONNECTIONS, rate=rate)
        async with background_load(options) as load:
            say(f"writing for {seconds:g} s")
            await asyncio.sleep(seconds)
            before = load.recording.take_latencies()
            before_mb = resident_mb(cluster, [leader])[leader]
            answers = []
            async with repeated(sample, SAMPLE_S):
                for number in range(lists):
                    say(f"list {number + 1} of {lists}")
                    answers.append(await asyncio.to_thread(_get, url))
            during = load.recording.take_latencies()
    if before is None or during is None:
        raise BenchError("no PUT was answered: check that the machine is otherwise idle")
    return ListingResult(
        keys=keys,
        value_bytes=value_bytes,
        rate=rate,
        before=before,
        during=during,
        lists=[examined(answer) for answer in answers],
        before_mb=before_mb,
        max_mb=max_mb,
    )


class ListAnswer(msgspec.Struct, frozen=True):
    """A list as it was received."""

    seconds: float
    first_s: float
    revision: int
    parts: list[bytes]


def _get(url: str) -> ListAnswer:
    """Receive a list without parsing it, so that the load in the other thread is not delayed."""
    parsed = URL(url)
    connection = http.client.HTTPConnection(parsed.host or "", parsed.port)
    began = time.perf_counter()
    connection.request("GET", "/kv/", headers={"Accept": "application/x-ndjson"})
    response = connection.getresponse()
    if response.status != 200:
        raise BenchError(f"the list was answered with status {response.status}: {response.read(500)!r}")
    first_s = time.perf_counter() - began
    parts = []
    while part := response.read(RECEIVE_BYTES):
        parts.append(part)
    seconds = time.perf_counter() - began
    connection.close()
    return ListAnswer(seconds, first_s, int(response.headers["KV-Revision"]), parts)


def examined(answer: ListAnswer) -> ReceivedList:
    """Check order, uniqueness and revisions of a list."""
    decode = msgspec.json.Decoder(_ListLine).decode
    content = b"".join(answer.parts)
    count, before, wrong = 0, "", ""
    for line in map(decode, content.splitlines()):
        if line.key is None:
            continue
        count += 1
        if line.key <= before:
            wrong = f"{line.key} follows {before}"
        if line.revision > answer.revision:
            wrong = f"{line.key} has revision {line.revision}, the list {answer.revision}"
        before = line.key
    megabytes = len(content) / 1e6
    return ReceivedList(seconds=answer.seconds, first_s=answer.first_s, keys=count, megabytes=megabytes, wrong=wrong)


def list_report(result: ListingResult) -> RenderableType:
    """Return the lists and their cost."""
    lists = figure_table("list", "keys", "MB", "s", "first byte ms")
    for number, each in enumerate(result.lists, 1):
        cells = (f"{each.keys:,}", f"{each.megabytes:.1f}", f"{each.seconds:.2f}", f"{1000 * each.first_s:.0f}")
        lists.add_row(str(number), *cells)
    writers = figure_table(f"writers, {result.rate:,.0f} PUT/s", "PUTs", "p50 ms", "p99 ms", "max ms")
    for name, puts in (("before", result.before), ("during", result.during)):
        writers.add_row(name, f"{puts.count:,}", f"{puts.p50_ms:.1f}", f"{puts.p99_ms:.1f}", f"{puts.max_ms:.1f}")
    return Group(
        lists,
        writers,
        *(each.wrong for each in result.lists if each.wrong),
        verdict("all keys at one revision", met=result.sound),
        verdict(
            f"memory of the replica, {result.before_mb:.0f} MB, grows by <= {GROWTH_LIMIT_MB:.0f} MB "
            f"({result.growth_mb:+.1f} MB)",
            met=result.growth_mb <= GROWTH_LIMIT_MB,
        ),
        verdict(
            f"p99 during <= {P99_RATIO_LIMIT:g} x before ({result.ratio:.2f})", met=result.ratio <= P99_RATIO_LIMIT
        ),
    )
