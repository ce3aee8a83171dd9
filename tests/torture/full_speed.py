"""The load generator of `bench` at full speed, with every answer recorded and checked for linearizability."""

import asyncio
import itertools
import secrets
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.command import Json, run, write_json
from bench.errors import BenchError
from bench.load.generator import Generator
from bench.load.order import Mix, Order, draw
from bench.load.run import address_of
from bench.load.wire import Requests
from bench.report import print_report, verdict
from bench.scratch import scratch_directory
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.faults.history import Judgement, judge
from tests.torture.lifecycle.report import judged
from tests.torture.load_history import LoadHistory

FULL_SPEED = typer.Typer()


class FullSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """The number of requests in a load and what the checker says about their answers."""

    requests: int
    acknowledged: int
    judgement: Judgement

    @property
    def linearizable(self) -> bool:
        """Whether no answer contradicts linearizability."""
        judgement = self.judgement
        return not (judgement.illegal or judgement.backwards or judgement.lost)


@FULL_SPEED.command()
def load(
    *,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Number of requests in flight.")] = 64,
    keys: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of keys.")] = 10_000,
    reads: Annotated[int, typer.Option(min=0, max=100, help="Percentage of GETs; the others are PUTs.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the load.")] = 10.0,
    json: Json = None,
) -> None:
    """Load all replicas at full speed and check that every answer is linearizable."""
    with scratch_directory() as directory:
        found = run(measure(directory, connections=connections, keys=keys, reads=reads, seconds=seconds))
        write_json(json, found)
        print_report(full_speed_report(found))
        if not found.linearizable:
            raise BenchError("the answers were not linearizable: this must never happen, please report it")


async def measure(directory: Path, *, connections: int, keys: int, reads: int, seconds: float) -> FullSpeed:
    """Load a new cluster of three in `directory` and check the answers. Raises ClusterError."""
    cluster = ProcessCluster(3, directory / "cluster")
    cluster.prepare()
    mix = Mix(reads=reads, keys=keys, prefix="load-", seed=secrets.randbelow(1 << 32))
    try:
        cluster.start()
        await cluster.wait_ready()
        addresses = [address_of(url) for url in cluster.endpoints]
        order = Order(mix=mix, addresses=addresses, connections=connections, warm_up_s=0.0, seconds=seconds)
        history = LoadHistory(Requests(mix, order.worker, ""), mix.prefix)
        await asyncio.to_thread(_load, order, history)
    finally:
        await cluster.stop()
    acknowledged = sum(call.kind == "put" and call.outcome == "answered" for call in history.calls)
    return FullSpeed(requests=len(history.calls), acknowledged=acknowledged, judgement=judge(history.calls))


def _load(order: Order, history: LoadHistory) -> None:
    generator = Generator(order, history)
    try:
        generator.fill()
        generator.run(itertools.cycle(draw(order.mix, order.worker)), time.monotonic_ns())
    finally:
        generator.close()


def full_speed_report(found: FullSpeed) -> RenderableType:
    """Return the number of requests and what the checker says."""
    return Group(
        f"{found.requests:,} requests",
        *judged(found.judgement, found.acknowledged),
        verdict("every answer linearizable", met=found.linearizable),
    )
