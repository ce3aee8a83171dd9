"""`python -m bench load | sweep`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress

from bench import chart
from bench.command import Json, Plot, progress_bar, run, write_json
from bench.load import report
from bench.load import run as loading
from bench.load import sweep as sweeping
from bench.load.found import Load
from bench.load.generator import TELL_S
from bench.load.order import Distribution, Mix
from bench.load.target import At, Target, found, started
from bench.processes import check_platform
from bench.report import print_report
from bench.scratch import scratch_directory

LOAD = typer.Typer()

Endpoints = Annotated[
    str | None,
    typer.Option(
        metavar="URL,...", help="The replicas of a cluster that runs, with commas. Without it one is started."
    ),
]
Where = Annotated[At, typer.Option("--at", help="Which replicas are asked; all: connections are dealt out in turn.")]
Nodes = Annotated[int, typer.Option(min=1, max=15, help="Replicas of the cluster that is started.")]
Connections = Annotated[int, typer.Option(min=1, max=10_000, help="Requests under way at once.")]
Reads = Annotated[int, typer.Option(min=0, max=100, help="Percent of GETs; the rest are PUTs.")]
Keys = Annotated[int, typer.Option(min=1, max=10_000_000, help="How many keys.")]
Drawn = Annotated[Distribution, typer.Option(help="How keys are drawn.")]
ValueBytes = Annotated[int, typer.Option(min=16, max=1 << 20, help="Length of each value.")]
WarmUp = Annotated[float, typer.Option(min=0, max=600, help="Seconds before those that are measured.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Processes of the generator.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the figures to FILE, too.")]


@LOAD.command()
def load(
    *,
    endpoints: Endpoints = None,
    at: Where = "leader",
    nodes: Nodes = 3,
    connections: Connections = 64,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1, help="Requests a second, whether answers come or not; else each connection waits for its own."
        ),
    ] = None,
    reads: Reads = 0,
    keys: Keys = 10_000,
    distribution: Drawn = "uniform",
    value_bytes: ValueBytes = 100,
    warm_up: WarmUp = 2.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="How long it is measured.")] = 10.0,
    processes: Processes = loading.DEFAULT_PROCESSES,
    json: Json = None,
    csv: Csv = None,
    plot: Plot = None,
) -> None:
    """PUTs and GETs in a closed or open loop: throughput and latencies.

    In an open loop latencies count from when a request was due, sent or not.
    Keys that begin with bench- are overwritten.
    """
    check_platform()
    chart.check(plot)
    mix = Mix(
        reads=reads,
        keys=keys,
        distribution=distribution,
        value_bytes=value_bytes,
        prefix="bench-",
        seed=secrets.randbelow(1 << 32),
    )
    ask = loading.Ask(
        mix=mix,
        urls=[],
        connections=connections,
        rate=rate,
        warm_up_s=warm_up,
        seconds=seconds,
        processes=processes,
        fill=True,
    )
    measured = run(_load(ask, endpoints, at, nodes))
    write_json(json, measured)
    write_figures(csv, plot, [measured], report.charts(measured))
    print_report(report.load_report(measured))
    raise typer.Exit(measured.errors > 0)


@LOAD.command()
def sweep(
    *,
    endpoints: Endpoints = None,
    at: Where = "leader",
    nodes: Nodes = 3,
    connections: Connections = 256,
    reads: Reads = 0,
    keys: Keys = 10_000,
    distribution: Drawn = "uniform",
    value_bytes: ValueBytes = 100,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long each rate is measured.")] = 5.0,
    processes: Processes = loading.DEFAULT_PROCESSES,
    json: Json = None,
    csv: Csv = None,
    plot: Plot = None,
) -> None:
    """Latency over throughput: an open loop at growing rates, until the store does not keep up.

    Keys that begin with bench- are overwritten.
    """
    check_platform()
    chart.check(plot)
    mix = Mix(
        reads=reads,
        keys=keys,
        distribution=distribution,
        value_bytes=value_bytes,
        prefix="bench-",
        seed=secrets.randbelow(1 << 32),
    )
    ask = loading.Ask(mix=mix, urls=[], connections=connections, seconds=seconds, processes=processes, fill=True)
    measured = run(_sweep(ask, endpoints, at, nodes))
    write_json(json, measured)
    write_figures(csv, plot, measured.loads, sweeping.charts(measured.steps))
    print_report(sweeping.sweep_report(measured))
    raise typer.Exit(any(step.errors for step in measured.loads))


async def _sweep(ask: loading.Ask, endpoints: str | None, at: At, nodes: int) -> sweeping.Sweep:
    async with target(endpoints, nodes) as cluster:
        ask = msgspec.structs.replace(ask, urls=cluster.at(at))
        steps: list[Load] = []
        with progress_bar() as bar:
            peak = await watched(ask, bar, "closed loop")
            for share in sweeping.SHARES:
                rate = share * peak.per_second
                step = msgspec.structs.replace(ask, rate=rate, fill=False)
                steps.append(await watched(step, bar, f"{rate:,.0f} a second"))
                if steps[-1].saturated:
                    break
        return sweeping.Sweep(peak=peak, steps=steps)


async def _load(ask: loading.Ask, endpoints: str | None, at: At, nodes: int) -> Load:
    async with target(endpoints, nodes) as cluster:
        ask = msgspec.structs.replace(ask, urls=cluster.at(at))
        with progress_bar() as bar:
            return await watched(ask, bar, "load")


@asynccontextmanager
async def target(endpoints: str | None, nodes: int) -> AsyncIterator[Target]:
    """The cluster at `endpoints`, or a new one for the time of the block. Raises BenchError or ClusterError."""
    if endpoints:
        yield await found(endpoints.split(","))
        return
    with scratch_directory() as directory:
        async with started(directory / "cluster", nodes) as cluster:
            yield cluster


async def watched(ask: loading.Ask, bar: Progress, name: str) -> Load:
    """Run it under a progress bar, which gets a task more."""
    total_s = ask.warm_up_s + ask.seconds
    task = bar.add_task(name, total=round(total_s))
    before, loop = 0, asyncio.get_running_loop()
    began = loop.time()

    def show(answered: int) -> None:
        nonlocal before
        elapsed_s = loop.time() - began
        speed = (answered - before) / TELL_S
        before = answered
        text = f"{name} {speed:,.0f}/s"
        bar.update(task, completed=min(round(elapsed_s), round(total_s)), description=text)

    try:
        return await loading.run(ask, show)
    finally:
        bar.remove_task(task)


def write_figures(csv: Path | None, plot: Path | None, loads: list[Load], charts: list[chart.Chart]) -> None:
    """What is wanted of it."""
    if csv is not None:
        csv.write_text(report.write_csv(loads))
    if plot is not None:
        chart.write(plot, charts)
