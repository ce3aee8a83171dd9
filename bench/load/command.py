"""`python -m bench load` and `python -m bench sweep`."""

import secrets
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.table import Table

from bench.cluster import At, target
from bench.command import (
    Connections,
    Json,
    KeyDistribution,
    Keys,
    Nodes,
    Reads,
    ValueBytes,
    figure_table,
    finish,
    run,
    say,
)
from bench.load.options import LoadOptions, Mix
from bench.load.process import run_load
from bench.load.recording import BUSY_LIMIT, LatencySummary, LoadResult
from bench.plot import Plot, check_plot, draw_lines
from bench.processes import check_platform

LOAD = typer.Typer()

Endpoints = Annotated[
    str | None, typer.Option(metavar="URL,...", help="Replicas of a running cluster; by default a new one is started.")
]
Where = Annotated[At, typer.Option("--at", help="Replicas to connect to; all distributes the connections in turn.")]

RATE_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
"""Rates of a sweep, as shares of the throughput of a closed loop; at the last ones the store is saturated."""


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop, and open loops at growing rates up to the first one that saturates the store."""

    closed: LoadResult
    steps: list[LoadResult]


@LOAD.command()
def load(
    *,
    endpoints: Endpoints = None,
    at: Where = "leader",
    nodes: Nodes = 3,
    connections: Connections = 64,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="Requests per second in an open loop; by default a closed loop."),
    ] = None,
    reads: Reads = 0,
    keys: Keys = 10_000,
    distribution: KeyDistribution = "uniform",
    value_bytes: ValueBytes = 100,
    warm_up: Annotated[float, typer.Option(min=0, max=600, help="Seconds before the measured time.")] = 2.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="Length of the measured time.")] = 10.0,
    json: Json = None,
) -> None:
    """Measure throughput and latency of PUTs and GETs in a closed or an open loop.

    In a closed loop each connection waits for its answer. In an open loop the latency of a request counts from the time
    at which it was due. Keys that begin with bench- are overwritten.
    """
    check_platform()
    mix = _mix(reads, keys, distribution, value_bytes)
    options = LoadOptions(
        mix=mix, urls=[], connections=connections, rate=rate, warm_up_s=warm_up, seconds=seconds, fill=True
    )
    result = run(_load(options, endpoints, at, nodes))
    finish(json, result, load_report(result), within_limits=not result.errors)


@LOAD.command()
def sweep(
    *,
    endpoints: Endpoints = None,
    at: Where = "leader",
    nodes: Nodes = 3,
    connections: Connections = 256,
    reads: Reads = 0,
    keys: Keys = 10_000,
    distribution: KeyDistribution = "uniform",
    value_bytes: ValueBytes = 100,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of the load at each rate.")] = 5.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Measure latency over throughput, in an open loop at growing rates until the store is saturated.

    Keys that begin with bench- are overwritten.
    """
    check_platform()
    check_plot(plot)
    mix = _mix(reads, keys, distribution, value_bytes)
    options = LoadOptions(mix=mix, urls=[], connections=connections, seconds=seconds, fill=True)
    result = run(_sweep(options, endpoints, at, nodes))
    lines = {
        name: [(step.per_second, getattr(step.all, field)) for step in result.steps]
        for name, field in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
    }
    draw_lines(plot, "Latency over throughput", "answers per second", "ms", lines, log=True)
    errors = any(step.errors for step in (result.closed, *result.steps))
    finish(json, result, sweep_report(result), within_limits=not errors)


def _mix(reads: int, keys: int, distribution: KeyDistribution, value_bytes: int) -> Mix:
    seed = secrets.randbelow(1 << 32)
    return Mix(reads=reads, keys=keys, distribution=distribution, value_bytes=value_bytes, seed=seed)


async def _load(options: LoadOptions, endpoints: str | None, at: At, nodes: int) -> LoadResult:
    async with target(endpoints, nodes) as cluster:
        say(f"load for {options.warm_up_s + options.seconds:g} s")
        return await run_load(msgspec.structs.replace(options, urls=cluster.at(at)))


async def _sweep(options: LoadOptions, endpoints: str | None, at: At, nodes: int) -> SweepResult:
    async with target(endpoints, nodes) as cluster:
        options = msgspec.structs.replace(options, urls=cluster.at(at))
        say("closed loop")
        closed = await run_load(options)
        steps: list[LoadResult] = []
        for share in RATE_SHARES:
            rate = share * closed.per_second
            say(f"open loop at {rate:,.0f} requests per second")
            steps.append(await run_load(msgspec.structs.replace(options, rate=rate, fill=False)))
            if steps[-1].saturated:
                break
        return SweepResult(closed=closed, steps=steps)


def load_report(result: LoadResult) -> RenderableType:
    """Return throughput, latencies and warnings."""
    options = result.options
    loop = "closed loop" if options.rate is None else f"open loop at {options.rate:,.0f} requests per second"
    return Group(
        f"{loop}, {options.connections} connections, {_describe(options.mix)}: "
        f"{result.per_second:,.0f} answers per second for {options.seconds:g} s",
        latency_table(result),
        *_warnings(result),
    )


def _describe(mix: Mix) -> str:
    return f"{mix.reads} % GET, {mix.keys:,} keys ({mix.distribution}), values of {mix.value_bytes:,} bytes"


def latency_table(result: LoadResult) -> Table:
    """Return a table with a row for each kind of request."""
    table = figure_table("ms", "requests", "mean", "p50", "p90", "p99", "p99.9", "max")
    kinds = (("PUT", result.put), ("GET", result.get), ("all", result.all if result.get and result.put else None))
    for name, each in kinds:
        if each is not None:
            table.add_row(name, f"{each.count:,}", f"{each.mean_ms:.2f}", *percentile_cells(each))
    return table


def percentile_cells(latencies: LatencySummary) -> list[str]:
    """Return p50, p90, p99, p99.9 and the maximum in milliseconds."""
    values = (latencies.p50_ms, latencies.p90_ms, latencies.p99_ms, latencies.p999_ms, latencies.max_ms)
    return [f"{value:.2f}" for value in values]


def _warnings(result: LoadResult) -> Iterator[str]:
    if result.errors:
        bad = {status: count for status, count in result.statuses.items() if not 200 <= status < 300}
        yield f"[red]{result.errors} errors[/red]: {result.lost} requests without an answer, answers by status {bad}"
    if result.saturated:
        yield (
            f"[yellow]saturated[/yellow]: {result.per_second:,.0f} of {result.options.rate:,.0f} requests per second "
            f"answered, {result.unsent:,} not sent; the latencies depend on the length of the load"
        )
    if result.generator_cpu > BUSY_LIMIT:
        yield f"[yellow]the generator used {result.generator_cpu:.0%} of a core[/yellow] and may be the bottleneck"


def sweep_report(result: SweepResult) -> RenderableType:
    """Return a table with a row for each rate."""
    table = figure_table("requests/s", "answers/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "errors", "")
    for step in (result.closed, *result.steps):
        table.add_row(
            "closed loop" if step.options.rate is None else f"{step.options.rate:,.0f}",
            f"{step.per_second:,.0f}",
            *percentile_cells(step.all),
            str(step.errors),
            "saturated" if step.saturated else "",
        )
    sustained = max((step.per_second for step in result.steps if not step.saturated), default=0.0)
    return Group(
        f"{_describe(result.closed.options.mix)}; latencies count from the time at which a request was due",
        table,
        f"the store sustains {sustained:,.0f} requests per second in an open loop, {result.closed.per_second:,.0f} in "
        f"a closed loop of {result.closed.options.connections} connections",
    )
