"""A counter that clients increment with retries while the leader is killed: every increment must happen exactly once.

An increment reads `n` and puts `n + 1` on the condition that the revision is unchanged. The condition alone is not
enough: when the answer to a put is lost with the leader, the condition of the retry fails, so the client would take the
put as not done and increment again. With an idempotency key the retry gets the first answer. The control run without
keys must end with a counter that is too high, which shows that the check can fail."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import kill_leader, started
from bench.command import Json, Nodes, finish, progress_bar, run, scratch_directory, verdict
from bench.errors import BenchError
from kvstore.client import Client, ConditionFailed, UnknownOutcome
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.command import Clients, conclude

KEY = "counter"
TIMEOUT_MS = 30_000
"""Timeout of an operation, which may wait for several elections."""

COUNTER = typer.Typer()


class CounterResult(msgspec.Struct, frozen=True, kw_only=True):
    """The increments of a run and the final value of the counter."""

    with_key: bool
    kills: int
    done: int
    """Acknowledged increments."""
    unknown: int
    """Increments of unknown outcome."""
    repeated: int
    """Increments that were made again after a lost answer, in a run without keys."""
    conflicts: int
    """Puts whose condition failed because another client had incremented."""
    final: int
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether the counter is the number of increments."""
        return self.final == self.done and not self.unknown


class IncrementingClients:
    """Clients that increment in several parts. Each part is done by new clients that ask the leader first, so that many
    answers are lost when the leader is killed."""

    def __init__(self, increments: int, *, with_key: bool) -> None:
        self._increments = increments
        self._with_key = with_key
        self._begun = 0
        self._goal = 0
        self._endpoints: list[str] = []
        self._changed = asyncio.Condition()
        self.done = self.unknown = self.repeated = self.conflicts = 0

    async def allow(self, goal: int, endpoints: list[str]) -> None:
        """Allow increments up to the number `goal`, sent to the first of `endpoints`."""
        async with self._changed:
            self._goal, self._endpoints = goal, endpoints
            self._changed.notify_all()

    async def reached(self, done: int) -> None:
        """Wait until `done` increments have an outcome."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.done + self.unknown >= done)

    async def run(self) -> None:
        """Run one client until all increments are done."""
        while self._begun < self._increments:
            async with self._changed:
                await self._changed.wait_for(lambda: self._begun < self._goal or self._begun >= self._increments)
            async with Client(self._endpoints, timeout_ms=TIMEOUT_MS, exactly_once=self._with_key) as client:
                while self._begun < self._goal:
                    self._begun += 1
                    done = await self._increment(client)
                    async with self._changed:
                        self.done += done
                        self.unknown += not done
                        self._changed.notify_all()

    async def _increment(self, client: Client) -> bool:
        """Increment; return False when the outcome is unknown."""
        while True:
            found = await client.get(KEY)
            count, revision = (int(found.value), found.revision) if found is not None else (0, None)
            try:
                await client.put(KEY, b"%d" % (count + 1), if_revision=revision, if_absent=revision is None)
            except ConditionFailed:
                self.conflicts += 1
            except UnknownOutcome:
                if self._with_key:
                    return False
                self.repeated += 1
            else:
                return True


@COUNTER.command()
def counter(
    *,
    increments: Annotated[int, typer.Option(min=1, help="Number of increments.")] = 10_000,
    kills: Annotated[int, typer.Option(min=0, help="Number of kills of the leader.")] = 20,
    clients: Clients = 8,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Do the control run: no idempotency keys, and blind retries.")
    ] = False,
    nodes: Nodes = 3,
    json: Json = None,
) -> None:
    """Increment a counter with retries while the leader is killed: each increment must happen exactly once."""
    if increments < 2 * kills:
        raise BenchError(f"--kills {kills} needs --increments {2 * kills} or more, not {increments}")
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("increments", total=increments)
        result = run(
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
        report = counter_report(result)
        if without_key:
            finish(json, result, report, within_limits=not result.exact)
        else:
            conclude(json, result, report, correct=result.exact)


async def measure(
    directory: Path,
    *,
    increments: int,
    kills: int,
    clients: int,
    with_key: bool,
    nodes: int = 3,
    show: Callable[[int, int], None] = lambda _, __: None,
) -> CounterResult:
    """Increment in a new cluster. `show` gets the number of increments and of kills so far. Raises ClusterError."""
    incrementing = IncrementingClients(increments, with_key=with_key)
    async with started(directory / "cluster", nodes) as cluster:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(incrementing.run())
            for killed in range(kills):
                await incrementing.allow(increments * (killed + 1) // kills, await _leader_first(cluster))
                await incrementing.reached(increments * (2 * killed + 1) // (2 * kills))
                await kill_leader(cluster)
                show(incrementing.done, killed + 1)
            await incrementing.allow(increments, await _leader_first(cluster))
        seconds = time.monotonic() - began
        async with Client(cluster.endpoints) as reader:
            found = await reader.get(KEY)
    return CounterResult(
        with_key=with_key,
        kills=kills,
        done=incrementing.done,
        unknown=incrementing.unknown,
        repeated=incrementing.repeated,
        conflicts=incrementing.conflicts,
        final=int(found.value) if found is not None else 0,
        seconds=seconds,
    )


async def _leader_first(cluster: ProcessCluster) -> list[str]:
    leader = cluster.replicas[await cluster.wait_ready()].url
    return [leader, *(url for url in cluster.endpoints if url != leader)]


def counter_report(result: CounterResult) -> RenderableType:
    """Return the increments and the counter."""
    how = "with idempotency keys" if result.with_key else "without idempotency keys, with blind retries"
    lines = [
        f"increments {how}, {result.kills} kills of the leader, {result.seconds:.0f} s",
        f"{result.done:,} increments acknowledged, {result.unknown} of unknown outcome",
        f"the counter is {result.final:,} ({result.final - result.done:+,})",
        f"{result.conflicts:,} puts failed their condition; {result.repeated} increments repeated after a lost answer",
    ]
    if result.with_key:
        return Group(*lines, verdict("every increment exactly once", met=result.exact))
    return Group(*lines, verdict("control run: the counter is too high without keys", met=not result.exact))
