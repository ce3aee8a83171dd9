"""PUTs at full speed for minutes: throughput over time, stalls, and growth of files and memory."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import file_mb, repeated, resident_mb, started, target_of
from bench.command import (
    Connections,
    Json,
    Keys,
    Nodes,
    ValueBytes,
    figure_table,
    finish,
    run,
    say,
    scratch_directory,
    verdict,
)
from bench.errors import BenchError
from bench.load.command import latency_table
from bench.load.options import LoadOptions, Mix
from bench.load.process import run_load
from bench.load.recording import LoadResult, per_second
from bench.plot import Plot, check_plot, draw_lines
from bench.processes import check_platform
from kvstore.testing.process_cluster import ProcessCluster

RATIO_LIMIT = 0.9
STALL_LIMIT_MS = 100
GROWTH_LIMIT = 1.2
SAMPLES = 60

ENDURANCE = typer.Typer()


class FileSample(msgspec.Struct, frozen=True):
    """Largest files and largest resident memory of any replica at one time of the run."""

    seconds: float
    file_mb: float
    resident_mb: float


class EnduranceResult(msgspec.Struct, frozen=True, kw_only=True):
    """A long load with samples of files and memory. Throughput is compared between spans of `span_s`."""

    load: LoadResult
    span_s: float
    samples: list[FileSample]

    @property
    def spans(self) -> list[float]:
        """PUTs per second in each span."""
        return per_second(self.load.bins, self.span_s)

    @property
    def ratio(self) -> float:
        """Throughput of the last span divided by that of the first one."""
        return self.spans[-1] / self.spans[0]

    @property
    def growth(self) -> float:
        """Largest size of the files in the last third of the run divided by that in the middle third."""
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        return max(each.file_mb for each in last) / max(each.file_mb for each in middle)

    @property
    def limits(self) -> dict[str, bool]:
        """Whether each limit is met, by its description."""
        return {
            f"last span >= {RATIO_LIMIT} x first span ({self.ratio:.2f})": self.ratio >= RATIO_LIMIT,
            f"no stall > {STALL_LIMIT_MS} ms ({self.load.stall_ms:.0f} ms)": self.load.stall_ms <= STALL_LIMIT_MS,
            f"files of last third <= {GROWTH_LIMIT} x middle third ({self.growth:.2f})": self.growth <= GROWTH_LIMIT,
        }


@ENDURANCE.command()
def endurance(
    *,
    seconds: Annotated[int, typer.Option(min=3, max=86_400, help="Length of the load.")] = 600,
    connections: Connections = 64,
    keys: Keys = 10_000,
    value_bytes: ValueBytes = 100,
    nodes: Nodes = 3,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Overwrite keys at full speed for minutes; measure throughput over time, stalls, growth of files and memory."""
    check_platform()
    check_plot(plot)
    mix = Mix(keys=keys, value_bytes=value_bytes)
    warm_up_s = min(5.0, seconds / 3)
    options = LoadOptions(
        mix=mix, urls=[], connections=connections, warm_up_s=warm_up_s, seconds=float(seconds), fill=True
    )
    with scratch_directory() as directory:
        result = run(_measure(directory, options, nodes))
    if not result.spans[0]:
        raise BenchError("no PUT was answered in the first span: check that the machine is otherwise idle")
    points = [(number + 0.5, rate) for number, rate in enumerate(per_second(result.load.bins, 1.0))]
    draw_lines(plot, "Throughput over time", "s", "PUT/s", {"PUT/s": points})
    finish(json, result, endurance_report(result), within_limits=all(result.limits.values()))


async def _measure(directory: Path, options: LoadOptions, nodes: int) -> EnduranceResult:
    samples: list[FileSample] = []
    began = time.monotonic()
    async with started(directory / "cluster", nodes) as cluster:
        options = msgspec.structs.replace(options, urls=(await target_of(cluster)).at("leader"))
        say(f"load for {options.warm_up_s + options.seconds:g} s")
        async with repeated(
            lambda: samples.append(_sample(cluster, time.monotonic() - began)), options.seconds / SAMPLES
        ):
            load = await run_load(options)
    return EnduranceResult(load=load, span_s=min(60.0, options.seconds / 3), samples=samples)


def _sample(cluster: ProcessCluster, seconds: float) -> FileSample:
    return FileSample(seconds, max(map(file_mb, cluster.replicas.values())), max(resident_mb(cluster).values()))


def endurance_report(result: EnduranceResult) -> RenderableType:
    """Return throughput, files and memory of each span, and the limits."""
    table = figure_table("from s", "to s", "PUT/s", "files MB", "resident MB")
    samples = [result.samples[len(result.samples) * n // len(result.spans)] for n in range(1, len(result.spans))]
    for (number, rate), sample in zip(enumerate(result.spans), [*samples, result.samples[-1]], strict=True):
        cells = (rate, sample.file_mb, sample.resident_mb)
        table.add_row(
            f"{number * result.span_s:.0f}", f"{(number + 1) * result.span_s:.0f}", *(f"{each:,.0f}" for each in cells)
        )
    return Group(
        table,
        latency_table(result.load),
        f"{result.load.errors} errors; files and memory are those of the largest replica",
        *(verdict(limit, met=met) for limit, met in result.limits.items()),
    )
