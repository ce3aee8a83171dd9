"""Many PUTs in each transaction: what the replicas can take when the way of a request is no matter any more."""

import statistics
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.command import Json, progress_bar, run, write_json
from bench.load.command import Nodes, ValueBytes, watched
from bench.load.found import Load
from bench.load.order import Mix
from bench.load.run import Ask
from bench.load.target import started
from bench.processes import check_platform
from bench.report import figure_table, print_report, verdict
from bench.scratch import scratch_directory

LIMIT_PER_S = 60_000
WARM_UP_S = 1.0
PREFIX = "bench-"

BATCH = typer.Typer()


class Batches(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: with each number of connections a load in each round, all of them in turn."""

    size: int
    loads: dict[int, list[Load]]

    def per_second(self, connections: int) -> float:
        """PUTs a second, the median of all rounds."""
        return self.size * statistics.median(load.per_second for load in self.loads[connections])

    @property
    def best(self) -> float:
        """With the number of connections that gives most."""
        return max(map(self.per_second, self.loads))

    @property
    def errors(self) -> int:
        """Transactions that were not answered with 2xx."""
        return sum(load.errors for loads in self.loads.values() for load in loads)

    @property
    def within_limits(self) -> bool:
        """True when there are as many as promised, and all were done."""
        return self.best >= LIMIT_PER_S and not self.errors


@BATCH.command()
def batch(
    *,
    size: Annotated[int, typer.Option(min=2, max=1000, help="PUTs in each transaction.")] = 100,
    connections: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Transactions under way at once, again for each number.")
    ] = None,
    keys: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many keys.")] = 10_000,
    value_bytes: ValueBytes = 100,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long each load is measured.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each load is made, all of them in turn.")] = 3,
    nodes: Nodes = 3,
    json: Json = None,
) -> None:
    """PUTs in transactions of a hundred: how many of them a second."""
    check_platform()
    ask = Ask(
        mix=Mix(keys=max(keys, size), value_bytes=value_bytes, prefix=PREFIX, batch=size),
        urls=[],
        connections=1,
        warm_up_s=WARM_UP_S,
        seconds=seconds,
    )
    with scratch_directory() as directory:
        found = run(_measure(directory, ask, connections or [2, 4, 16], rounds, nodes))
    write_json(json, found)
    print_report(batch_report(found))
    raise typer.Exit(not found.within_limits)


async def _measure(directory: Path, ask: Ask, connections: list[int], rounds: int, nodes: int) -> Batches:
    loads: dict[int, list[Load]] = {number: [] for number in connections}
    async with started(directory / "cluster", nodes) as cluster:
        with progress_bar() as bar:
            for _ in range(rounds):
                for number, found in loads.items():
                    order = msgspec.structs.replace(ask, urls=[cluster.leader], connections=number)
                    found.append(await watched(order, bar, f"{number} connections, transactions"))
    return Batches(size=ask.mix.batch, loads=loads)


def batch_report(found: Batches) -> RenderableType:
    """Speed and latencies for each number of connections."""
    table = figure_table("connections", "PUT/s", "least", "most", "p50 ms", "p99 ms")
    for number, loads in found.loads.items():
        speeds = [found.size * load.per_second for load in loads]
        times = (statistics.median(getattr(load.all, name) for load in loads) for name in ("p50_ms", "p99_ms"))
        table.add_row(
            str(number),
            *(f"{speed:,.0f}" for speed in (found.per_second(number), min(speeds), max(speeds))),
            *(f"{time:.1f}" for time in times),
        )
    rounds = max(map(len, found.loads.values()))
    busiest = max(load.busiest for loads in found.loads.values() for load in loads)
    return Group(
        f"transactions of {found.size} PUTs; medians of {rounds} rounds, latencies of a transaction",
        table,
        f"{found.errors} errors; the generator was busy for {busiest:.0%} of the time at most",
        verdict(f">= {LIMIT_PER_S:,} PUT/s", met=found.best >= LIMIT_PER_S),
    )
