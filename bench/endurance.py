"""PUTs at full speed for minutes: does the store get slower, or stand still?"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench import chart
from bench.chart import Axis, Chart, Series
from bench.command import Json, Plot, progress_bar, run, write_json
from bench.errors import BenchError
from bench.load.command import Connections, Keys, Nodes, ValueBytes, watched
from bench.load.found import Load, per_second
from bench.load.order import Mix
from bench.load.report import latency_table
from bench.load.run import Ask
from bench.load.target import started
from bench.processes import check_platform
from bench.report import figure_table, print_report, verdict
from bench.scratch import scratch_directory

RATIO_LIMIT = 0.9
STALL_LIMIT_MS = 100

ENDURANCE = typer.Typer()


class Endurance(msgspec.Struct, frozen=True, kw_only=True):
    """A long load. `span_s`: what is compared, a minute at the beginning and one at the end; a third of a short run."""

    load: Load
    span_s: float

    @property
    def spans(self) -> list[float]:
        """PUTs a second in each span."""
        return per_second(self.load.bins, self.span_s)

    @property
    def ratio(self) -> float:
        """The last span over the first one."""
        return self.spans[-1] / self.spans[0]

    @property
    def within_limits(self) -> bool:
        """True when it was neither slower at the end nor stood still."""
        return self.ratio >= RATIO_LIMIT and self.load.stall_ms <= STALL_LIMIT_MS


@ENDURANCE.command()
def endurance(
    *,
    seconds: Annotated[int, typer.Option(min=3, max=86_400, help="How long.")] = 600,
    connections: Connections = 64,
    keys: Keys = 10_000,
    value_bytes: ValueBytes = 100,
    nodes: Nodes = 3,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """PUTs at full speed for minutes: the last minute against the first one, and the longest time without an answer."""
    check_platform()
    chart.check(plot)
    ask = Ask(
        mix=Mix(keys=keys, value_bytes=value_bytes),
        urls=[],
        connections=connections,
        warm_up_s=min(5.0, seconds / 3),
        seconds=float(seconds),
        fill=True,
    )
    with scratch_directory() as directory:
        load = run(_load(directory, ask, nodes))
    found = Endurance(load=load, span_s=min(60.0, seconds / 3))
    if not found.spans[0]:
        raise BenchError("nothing was answered in the beginning: see whether the machine is busy with something else")
    write_json(json, found)
    if plot is not None:
        chart.write(plot, [curve(found)])
    print_report(endurance_report(found))
    raise typer.Exit(not found.within_limits)


async def _load(directory: Path, ask: Ask, nodes: int) -> Load:
    async with started(directory / "cluster", nodes) as cluster:
        with progress_bar() as bar:
            return await watched(msgspec.structs.replace(ask, urls=[cluster.leader]), bar, "PUTs")


def endurance_report(found: Endurance) -> RenderableType:
    """The speed of each span, and whether the promises are kept."""
    table = figure_table("from s", "to s", "PUT/s")
    for number, rate in enumerate(found.spans):
        table.add_row(f"{number * found.span_s:.0f}", f"{(number + 1) * found.span_s:.0f}", f"{rate:,.0f}")
    return Group(
        table,
        latency_table(found.load),
        f"the last {found.span_s:.0f} s had {found.ratio:.2f} x the PUTs of the first; longest time without an answer "
        f"{found.load.stall_ms:.0f} ms; {found.load.errors} errors",
        verdict(f"last >= {RATIO_LIMIT} x first", met=found.ratio >= RATIO_LIMIT),
        verdict(f"no stall > {STALL_LIMIT_MS} ms", met=found.load.stall_ms <= STALL_LIMIT_MS),
    )


def curve(found: Endurance) -> Chart:
    """PUTs in each second."""
    rates = per_second(found.load.bins, 1.0)
    points = [(number + 0.5, rate) for number, rate in enumerate(rates)]
    return Chart("Throughput over time", Axis("s"), Axis("PUT/s"), [Series("", points)])
