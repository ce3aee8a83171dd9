"""Membership changes while clients work; a replica is killed during every second change."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import replace_disk, started
from bench.command import Json, figure_table, progress_bar, run, scratch_directory, verdict
from bench.errors import BenchError
from kvstore.client import Client, ClientError, NoSuchMember
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.torture.clients import FailedWrite, RecordingClients, unexcused
from tests.torture.command import Clients, Seed, conclude, drawn, first_lines
from tests.torture.history import HistoryVerdict, judge

NODES = 3
MIN_MEMBERS, MAX_MEMBERS = 3, 5
PATIENCE_S = 90.0
"""Timeout of a membership change, and of the catch-up of all members after it."""
READ_BACK_S = 300.0
AFTERMATH_S = 0.5
"""Time after recovery in which a request that the kill affected may still fail."""

CHURN = typer.Typer()


class ChangeKind(StrEnum):
    """Kind of a membership change."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    """The replica is stopped, its data removed, and it returns with an empty disk."""


class MembershipChange(msgspec.Struct, frozen=True):
    """One change, and the replica that was killed during it."""

    kind: ChangeKind
    member: str
    killed: str | None
    seconds: float


class ChurnResult(msgspec.Struct, frozen=True, kw_only=True):
    """All changes of a run and the verdict on its history."""

    seed: int
    changes: list[MembershipChange]
    acknowledged: int
    failures: int
    unexcused: list[FailedWrite]
    """Writes that failed without a kill."""
    verdict: HistoryVerdict
    troubles: list[str]

    def count(self, kind: ChangeKind, *, with_kill: bool) -> int:
        """Return the number of changes of a kind."""
        return sum(one.kind is kind and (one.killed is not None) is with_kill for one in self.changes)

    @property
    def correct(self) -> bool:
        """Whether no guarantee was violated, and no write failed without a kill."""
        return self.verdict.sound and not (self.verdict.unverified or self.troubles or self.unexcused)


@CHURN.command()
def churn(
    changes: Annotated[int, typer.Option(min=1, help="Number of changes.")] = 100,
    clients: Clients = 6,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Add, remove and replace members while clients work, every second time with a kill, and check every answer."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("changes", total=changes)

        def show(one: MembershipChange) -> None:
            bar.update(task, advance=1, description=f"changes, last {one.kind} {one.member}")

        result = run(measure(directory, changes=changes, clients=clients, seed=drawn(seed), on_change=show))
        bar.stop()
        conclude(json, result, churn_report(result), correct=result.correct)


async def measure(
    directory: Path, *, changes: int, clients: int, seed: int, on_change: Callable[[MembershipChange], None]
) -> ChurnResult:
    """Change the members of a new cluster. Raises BenchError or ClusterError."""
    troubles: list[str] = []
    done: list[MembershipChange] = []
    async with started(directory / "cluster", NODES) as cluster:
        recorded = RecordingClients(
            lambda: {name: replica.url for name, replica in cluster.replicas.items()}, seed, retries=True
        )
        operator = _Operator(cluster, Random(seed))
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(recorded.run(number))
            for number in range(changes):
                done.append(await operator.change(with_kill=number % 2 == 1))
                on_change(done[-1])
            recorded.stop()
        try:
            await recorded.read_back(READ_BACK_S)
        except TimeoutError:
            troubles.append(f"the keys could not be read back within {READ_BACK_S:.0f} s")
    return ChurnResult(
        seed=seed,
        changes=done,
        acknowledged=recorded.acknowledged,
        failures=len(recorded.failures),
        unexcused=unexcused(recorded.failures, operator.faults),
        verdict=judge(recorded.calls),
        troubles=troubles,
    )


class _Operator:
    """An operator that changes the members of a running cluster."""

    def __init__(self, cluster: ProcessCluster, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._number = NODES
        self.faults: list[tuple[int, int]] = []
        """Begin and end of the outage that each kill causes, in monotonic nanoseconds."""

    async def change(self, *, with_kill: bool) -> MembershipChange:
        """Make one change and wait until all members have caught up. Raises BenchError after PATIENCE_S."""
        began = time.monotonic()
        kind, member = self._draw()
        killed: str | None = None
        async with asyncio.TaskGroup() as group:
            if with_kill:
                killed = self._rng.choice([name for name in self._cluster.replicas if name != member])
                group.create_task(self._kill(killed))
            group.create_task(self._make(kind, member))
        await self._retry(self._settled, "the members did not catch up")
        if self.faults and with_kill:
            self.faults[-1] = (self.faults[-1][0], time.monotonic_ns() + int(AFTERMATH_S * 1e9))
        return MembershipChange(kind, member, killed, time.monotonic() - began)

    def _draw(self) -> tuple[ChangeKind, str]:
        names = list(self._cluster.replicas)
        possible = [ChangeKind.REPLACE]
        possible += [ChangeKind.ADD] * (len(names) < MAX_MEMBERS) + [ChangeKind.REMOVE] * (len(names) > MIN_MEMBERS)
        kind = self._rng.choice(possible)
        if kind is not ChangeKind.ADD:
            return kind, self._rng.choice(names)
        self._number += 1
        return kind, f"n{self._number}"

    async def _make(self, kind: ChangeKind, member: str) -> None:
        match kind:
            case ChangeKind.ADD:
                await self._retry(lambda: self._add(member), f"{member} could not be added")
            case ChangeKind.REMOVE:
                await self._retry(lambda: self._remove(member), f"{member} could not be removed")
            case ChangeKind.REPLACE:
                await self._cluster.stop([member])
                await replace_disk(self._cluster, member, PATIENCE_S)
                self._cluster.start([member])

    async def _add(self, member: str) -> None:
        await self._cluster.add(member)

    async def _remove(self, member: str) -> None:
        data = self._cluster.replicas[member].data
        try:
            await self._cluster.remove(member)
        except NoSuchMember:  # an earlier attempt removed the member, but its answer was lost
            await self._cluster.stop([member])
            self._cluster.replicas.pop(member)
        shutil.rmtree(data, ignore_errors=True)

    async def _kill(self, name: str) -> None:
        """Kill a replica at a random time during the change, and start it again at a random time after the kill."""
        await asyncio.sleep(self._rng.uniform(0, 2))
        self.faults.append((time.monotonic_ns(), 1 << 62))
        self._cluster.kill(name)
        await asyncio.sleep(self._rng.uniform(0, 2))
        self._cluster.start([name])

    async def _settled(self) -> None:
        await self._cluster.wait_ready(timeout_s=POLL_S)
        await self._cluster.wait_joined(*self._cluster.replicas, timeout_s=POLL_S)
        async with Client(self._cluster.endpoints) as client:
            for member in (await client.members()).members:
                if member.name not in self._cluster.replicas:  # added by an attempt whose answer was lost
                    await client.remove_member(member.name)

    async def _retry(self, act: Callable[[], Awaitable[None]], failure: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await act()
            except (ClientError, ClusterError) as error:
                if time.monotonic() > deadline:
                    raise BenchError(f"{failure} within {PATIENCE_S:.0f} s: {error}") from error
            await asyncio.sleep(POLL_S)


def churn_report(result: ChurnResult) -> RenderableType:
    """Return the changes, and the verdict."""
    table = figure_table("change", "without a kill", "with a kill")
    for kind in ChangeKind:
        table.add_row(kind, str(result.count(kind, with_kill=False)), str(result.count(kind, with_kill=True)))
    slowest = max(result.changes, key=lambda change: change.seconds)
    reasons = [*result.troubles, *(f"{one.key} {one.why}" for one in result.unexcused)]
    return Group(
        table,
        f"slowest change: {slowest.kind} {slowest.member}, {slowest.seconds:.1f} s until all members had caught up",
        *result.verdict.lines(result.acknowledged),
        f"{result.failures} writes failed, {len(result.unexcused)} of them without a kill",
        *first_lines(reasons),
        verdict("no violation, no failed write without a kill", met=result.correct),
        f"to repeat: python -m tests.torture churn --changes {len(result.changes)} --seed {result.seed}",
    )
