"""One counter, incremented by clients that retry while the leader is killed: is each increment done exactly once?

An increment reads `n` and puts `n + 1`, if the key is at the revision that was read still. The condition alone does not
make that exact: the answer to a put that was done may be lost with the leader, and repeated it meets another revision,
so its client would take it for not done and increment again. With an idempotency key the repeated put gets the first
answer. Without one, and with clients that repeat all the same, the counter must come out too high: the control, which
shows that this bench can see it.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.command import Json, progress_bar, run, write_json
from bench.errors import BenchError
from bench.lifecycle.replicas import kill_leader
from bench.load.command import Nodes
from bench.report import print_report, verdict
from bench.scratch import scratch_directory
from kvstore.client import Client, ConditionFailed, UnknownOutcome
from kvstore.testing.process_cluster import ProcessCluster

KEY = "counter"
TIMEOUT_MS = 30_000
"""An increment may wait for several elections."""

COUNTER = typer.Typer()


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for and found. `done`: increments whose clients were told that they are done; `unknown`: those of
    which they were told nothing in time; `doubts`: answers that were lost, after which the increment was made anew,
    without keys. `lost_races`: puts that met another revision, as they must when several clients increment."""

    with_key: bool
    kills: int
    done: int
    unknown: int
    doubts: int
    lost_races: int
    final: int
    seconds: float

    @property
    def exact(self) -> bool:
        """True when the counter says what the clients say."""
        return self.final == self.done and not self.unknown


class Counting:
    """Clients that increment, each share of it by new ones, which ask the leader first: where its answers are lost
    there is most to be seen."""

    def __init__(self, increments: int, *, with_key: bool) -> None:
        self._increments = increments
        self._with_key = with_key
        self._begun = 0
        self._goal = 0
        self._endpoints: list[str] = []
        self._changed = asyncio.Condition()
        self.done = self.unknown = self.doubts = self.lost_races = 0

    async def allow(self, goal: int, endpoints: list[str]) -> None:
        """Let the clients go on until so many increments are done, with the leader as the first of `endpoints`."""
        async with self._changed:
            self._goal, self._endpoints = goal, endpoints
            self._changed.notify_all()

    async def reached(self, done: int) -> None:
        """Wait until so many are done."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.done + self.unknown >= done)

    async def client(self) -> None:
        """Increment until all of it is done."""
        while self._begun < self._increments:
            async with self._changed:
                await self._changed.wait_for(lambda: self._begun < self._goal or self._begun >= self._increments)
            async with Client(self._endpoints, timeout_ms=TIMEOUT_MS, exactly_once=self._with_key) as client:
                while self._begun < self._goal:
                    self._begun += 1
                    await self._increment_counted(client)

    async def _increment_counted(self, client: Client) -> None:
        told = await self._increment(client)
        async with self._changed:
            self.done += told
            self.unknown += not told
            self._changed.notify_all()

    async def _increment(self, client: Client) -> bool:
        """Whether it is certain to be done."""
        while True:
            found = await client.get(KEY)
            count, revision = (int(found.value), found.revision) if found is not None else (0, None)
            try:
                await client.put(KEY, b"%d" % (count + 1), if_revision=revision, if_absent=revision is None)
            except ConditionFailed:
                self.lost_races += 1
            except UnknownOutcome:
                if self._with_key:
                    return False
                self.doubts += 1
            else:
                return True


@COUNTER.command()
def counter(
    *,
    increments: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    kills: Annotated[int, typer.Option(min=0, help="How often the leader is killed meanwhile.")] = 20,
    clients: Annotated[int, typer.Option(min=1, max=64, help="How many clients increment.")] = 8,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="The control: no idempotency keys, and clients that repeat blindly.")
    ] = False,
    nodes: Nodes = 3,
    json: Json = None,
) -> None:
    """Increment one counter by clients that retry, while the leader is killed: is each increment done exactly once?"""
    if increments < 2 * kills:
        raise BenchError(
            f"{kills} kills amid {increments} increments are too many: take {2 * kills} increments or more"
        )
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("increments", total=increments)
        found = run(
            measure(
                directory,
                increments=increments,
                kills=kills,
                clients=clients,
                with_key=not without_key,
                nodes=nodes,
                show=lambda done, killed: bar.update(task, completed=done, description=f"increments, {killed} kills"),
            )
        )
        bar.stop()
        write_json(json, found)
        print_report(counter_report(found))
        if not without_key and not found.exact:
            raise BenchError("increments were lost or done twice: this must never happen, please report it")
    raise typer.Exit(without_key and found.exact)


async def measure(
    directory: Path,
    *,
    increments: int,
    kills: int,
    clients: int,
    with_key: bool,
    nodes: int = 3,
    show: Callable[[int, int], None] = lambda _, __: None,
) -> Counted:
    """In a new cluster in `directory`. `show` is told how many increments are done, and how many kills."""
    cluster = ProcessCluster(nodes, directory / "cluster")
    cluster.prepare()
    counting = Counting(increments, with_key=with_key)
    try:
        cluster.start()
        await cluster.wait_ready()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(counting.client())
            for killed in range(kills):
                await counting.allow(increments * (killed + 1) // kills, await _leader_first(cluster))
                await counting.reached(increments * (2 * killed + 1) // (2 * kills))
                await kill_leader(cluster)
                show(counting.done, killed + 1)
            await counting.allow(increments, await _leader_first(cluster))
        seconds = time.monotonic() - began
        async with Client(cluster.endpoints) as reader:
            found = await reader.get(KEY)
    finally:
        await cluster.stop()
    return Counted(
        with_key=with_key,
        kills=kills,
        done=counting.done,
        unknown=counting.unknown,
        doubts=counting.doubts,
        lost_races=counting.lost_races,
        final=int(found.value) if found is not None else 0,
        seconds=seconds,
    )


async def _leader_first(cluster: ProcessCluster) -> list[str]:
    leader = cluster.replicas[await cluster.wait_ready()].url
    return [leader, *(url for url in cluster.endpoints if url != leader)]


def counter_report(found: Counted) -> RenderableType:
    """What the clients say, and what the counter says."""
    how = "with idempotency keys" if found.with_key else "without idempotency keys, repeated blindly"
    told = f"{found.done:,} done, say the clients, and {found.unknown} of unknown outcome"
    lines = [
        f"increments {how}, {found.kills} kills of the leader, {found.seconds:.0f} s",
        f"{told}; the counter is at {found.final:,}: {found.final - found.done:+,}",
        f"{found.lost_races:,} puts met another revision; {found.doubts} answers were lost and the increment made anew",
    ]
    if found.with_key:
        return Group(*lines, verdict("every increment exactly once", met=found.exact))
    return Group(*lines, verdict("the control: without keys the counter comes out too high", met=not found.exact))
