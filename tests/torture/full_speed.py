"""The load generator of `bench` at full speed, with every answer recorded and checked for linearizability."""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import started
from bench.command import Connections, Json, Keys, Reads, run, scratch_directory, verdict
from bench.load.generator import Generator
from bench.load.options import LoadOptions, Mix
from tests.torture.command import conclude
from tests.torture.history import HistoryVerdict, judge
from tests.torture.load_history import LoadHistory

FULL_SPEED = typer.Typer()


class FullSpeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of requests, and the verdict on their answers."""

    requests: int
    acknowledged: int
    verdict: HistoryVerdict


@FULL_SPEED.command()
def load(
    *,
    connections: Connections = 64,
    keys: Keys = 10_000,
    reads: Reads = 50,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the load.")] = 10.0,
    json: Json = None,
) -> None:
    """Load all replicas at full speed and check that every answer is linearizable."""
    with scratch_directory() as directory:
        result = run(measure(directory, connections=connections, keys=keys, reads=reads, seconds=seconds))
        conclude(json, result, full_speed_report(result), correct=result.verdict.sound)


async def measure(directory: Path, *, connections: int, keys: int, reads: int, seconds: float) -> FullSpeedResult:
    """Load a new cluster and check the answers. Raises ClusterError."""
    mix = Mix(reads=reads, keys=keys, seed=secrets.randbelow(1 << 32))
    history = LoadHistory(mix)
    async with started(directory / "cluster") as cluster:
        options = LoadOptions(
            mix=mix, urls=cluster.endpoints, connections=connections, warm_up_s=0.0, seconds=seconds, fill=True
        )
        await asyncio.to_thread(_load, options, history)
    acknowledged = sum(call.kind == "put" and call.outcome == "answered" for call in history.calls)
    return FullSpeedResult(requests=len(history.calls), acknowledged=acknowledged, verdict=judge(history.calls))


def _load(options: LoadOptions, history: LoadHistory) -> None:
    generator = Generator(options, history)
    try:
        generator.fill()
        generator.run()
    finally:
        generator.close()


def full_speed_report(result: FullSpeedResult) -> RenderableType:
    """Return the number of requests and the verdict."""
    return Group(
        f"{result.requests:,} requests",
        *result.verdict.lines(result.acknowledged),
        verdict("every answer linearizable", met=result.verdict.sound),
    )
