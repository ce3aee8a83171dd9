"""PUTs in large transactions: the throughput of the replicas when the cost of HTTP is negligible."""

import statistics
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import started, target_of
from bench.command import Json, Nodes, ValueBytes, figure_table, finish, run, say, scratch_directory, verdict
from bench.load.options import LoadOptions, Mix
from bench.load.process import run_load
from bench.load.recording import LoadResult
from bench.processes import check_platform

LIMIT_PER_S = 60_000
KEYS = 10_000

BATCH = typer.Typer()


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all loads by number of connections, one result for each round."""

    size: int
    loads: dict[int, list[LoadResult]]

    def per_second(self, connections: int) -> float:
        """Return the median of PUTs per second over the rounds."""
        return self.size * statistics.median(load.per_second for load in self.loads[connections])

    @property
    def best(self) -> float:
        """PUTs per second with the best number of connections."""
        return max(map(self.per_second, self.loads))

    @property
    def errors(self) -> int:
        """Number of transactions that were not answered with 2xx."""
        return sum(load.errors for loads in self.loads.values() for load in loads)


@BATCH.command()
def batch(
    *,
    size: Annotated[int, typer.Option(min=2, max=1000, help="PUTs in each transaction.")] = 100,
    connections: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Transactions in flight; repeat for several loads.")
    ] = None,
    value_bytes: ValueBytes = 100,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of each load.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Number of loads with each number of connections.")] = 3,
    nodes: Nodes = 3,
    json: Json = None,
) -> None:
    """Measure PUTs per second when each transaction contains many PUTs."""
    check_platform()
    options = LoadOptions(mix=Mix(keys=KEYS, value_bytes=value_bytes, batch=size), urls=[], seconds=seconds)
    with scratch_directory() as directory:
        result = run(_measure(directory, options, connections or [2, 4, 16], rounds, nodes))
    within_limits = result.best >= LIMIT_PER_S and not result.errors
    finish(json, result, batch_report(result), within_limits=within_limits)


async def _measure(directory: Path, options: LoadOptions, numbers: list[int], rounds: int, nodes: int) -> BatchResult:
    loads: dict[int, list[LoadResult]] = {number: [] for number in numbers}
    async with started(directory / "cluster", nodes) as cluster:
        options = msgspec.structs.replace(options, urls=(await target_of(cluster)).at("leader"))
        for each_round in range(rounds):
            for number, results in loads.items():
                say(f"round {each_round + 1} of {rounds}, {number} connections")
                results.append(await run_load(msgspec.structs.replace(options, connections=number)))
    return BatchResult(size=options.mix.batch, loads=loads)


def batch_report(result: BatchResult) -> RenderableType:
    """Return throughput and latency for each number of connections."""
    table = figure_table("connections", "PUT/s", "least", "most", "p50 ms", "p99 ms")
    for number, loads in result.loads.items():
        speeds = [result.size * load.per_second for load in loads]
        latencies = (statistics.median(getattr(load.all, name) for load in loads) for name in ("p50_ms", "p99_ms"))
        table.add_row(
            str(number),
            *(f"{speed:,.0f}" for speed in (result.per_second(number), min(speeds), max(speeds))),
            *(f"{latency:.1f}" for latency in latencies),
        )
    return Group(
        f"transactions of {result.size} PUTs; medians of {max(map(len, result.loads.values()))} rounds, latencies of "
        f"transactions; {result.errors} errors",
        table,
        verdict(f"PUT/s >= {LIMIT_PER_S:,}", met=result.best >= LIMIT_PER_S),
    )
