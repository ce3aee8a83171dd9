"""SIGKILL at random times in a cluster that constantly truncates, compacts, installs snapshots and migrates."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import fill_keys
from bench.command import Json, figure_table, progress_bar, run, scratch_directory, verdict
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture import files
from tests.torture.clients import RecordingClients
from tests.torture.command import Clients, Seed, conclude, drawn, first_lines
from tests.torture.history import HistoryVerdict, judge
from tests.torture.migration import migrate

NODES = 3
TIGHT: dict[str, int | str] = {"log_slots": 100, "history_revisions": 64}
"""Settings with which compaction never pauses, and a replica that was down for a second or two needs a snapshot."""
BALLAST, BALLAST_BYTES = 160, 100_000
"""Number and length of values that make a snapshot 60 pages long, so that kills happen during its transfer."""
KILLS_PER_MIGRATION = 6
OPEN_S = 30.0
READY_S = 120.0
READ_BACK_S = 300.0
STAGES = ("truncating", "compacting", "installing", "clearing", "migrating", "replaying", "starting")

CRASHES = typer.Typer()


class Crash(msgspec.Struct, frozen=True):
    """One SIGKILL, and the activities of the victim at that time."""

    victim: str
    under_way: list[str]


class CrashesResult(msgspec.Struct, frozen=True, kw_only=True):
    """All kills of a run and the verdict on its history."""

    seed: int
    crashes: list[Crash]
    acknowledged: int
    verdict: HistoryVerdict
    migrated_keys: int
    troubles: list[str]
    """Replicas that ended by themselves, found their data damaged, or did not recover; keys lost by migrations."""

    def count(self, stage: str) -> int:
        """Return the number of kills during a stage."""
        return sum(stage in crash.under_way for crash in self.crashes)

    @property
    def correct(self) -> bool:
        """Whether no guarantee was violated, and everything was verified."""
        return self.verdict.sound and not self.verdict.unverified and not self.troubles


@CRASHES.command()
def crashes(
    kills: Annotated[int, typer.Option(min=2, help="Number of kills.")] = 300,
    clients: Clients = 6,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Kill replicas that truncate, compact, install snapshots and migrate, and check every answer."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("kills", total=kills)

        def show(crash: Crash) -> None:
            bar.update(task, advance=1, description=f"kills, last while {' and '.join(crash.under_way) or 'idle'}")

        result = run(measure(directory, kills=kills, clients=clients, seed=drawn(seed), on_kill=show))
        bar.stop()
        conclude(json, result, crashes_report(result), correct=result.correct)


async def measure(
    directory: Path, *, kills: int, clients: int, seed: int, on_kill: Callable[[Crash], None]
) -> CrashesResult:
    """Kill replicas of two new clusters, one of which migrates. Raises BenchError or ClusterError."""
    migrations = max(1, kills // KILLS_PER_MIGRATION)
    rng = Random(seed)
    done: list[Crash] = []

    def note(victim: str, under_way: list[str]) -> None:
        done.append(Crash(victim, under_way))
        on_kill(done[-1])

    recorded, troubles = await _kill_under_load(directory / "tight", kills - migrations, clients, rng, note)
    keys, wrong = await migrate(directory / "migrating", migrations, rng, note)
    return CrashesResult(
        seed=seed,
        crashes=done,
        acknowledged=recorded.acknowledged,
        verdict=judge(recorded.calls),
        migrated_keys=keys,
        troubles=[*troubles, *wrong],
    )


class _Killer:
    """A nemesis that kills replicas of a running cluster and starts them again."""

    def __init__(self, cluster: ProcessCluster, rng: Random, note: Callable[[str, list[str]], None]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._note = note
        self._started: dict[str, float] = {}
        self.troubles: list[str] = []

    async def kill(self, kills: int) -> None:
        """Kill replicas, mostly one at a time while the others continue."""
        remaining = kills
        while remaining > 0:
            names = list(self._cluster.replicas)
            count = self._rng.choices([1, 2, len(names)], [7, 1, 2])[0]
            victims = self._rng.sample(names, min(count, remaining))
            remaining -= len(victims)
            await self._kill(victims)

    async def _kill(self, victims: Sequence[str]) -> None:
        """Kill replicas at a random time after they opened their data, and start them again some time later."""
        for name in victims:
            await self._opened(name)
        await asyncio.sleep(self._rng.choice([self._rng.uniform(0, 0.5), self._rng.uniform(0, 3)]))
        ended = [name for name in self._cluster.replicas if not self._cluster.runs(name)]
        self.troubles += [f"{name} ended by itself: {describe_exit(self._cluster.exit_of(name))}" for name in ended]
        alive = [name for name in victims if name not in ended]
        self._cluster.kill(*alive)
        for name in alive:
            self._note(name, await asyncio.to_thread(files.under_way, self._cluster.replicas[name].data))
        await asyncio.sleep(self._rng.choice([0.0, self._rng.uniform(0, 1), self._rng.uniform(1, 3)]))
        self._started |= dict.fromkeys([*alive, *ended], files.now())
        self._cluster.start()

    async def _opened(self, name: str) -> None:
        """Wait until a replica has opened its data since it was started, at most OPEN_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                data, moment = self._cluster.replicas[name].data, self._started.get(name, 0.0)
                while not files.opened_since(data, moment):  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(POLL_S)


async def _kill_under_load(
    directory: Path, kills: int, clients: int, rng: Random, note: Callable[[str, list[str]], None]
) -> tuple[RecordingClients, list[str]]:
    cluster = ProcessCluster(NODES, directory, settings=TIGHT)
    cluster.prepare()
    recorded = RecordingClients(
        lambda: {name: replica.url for name, replica in cluster.replicas.items()}, rng.randrange(1 << 32), retries=True
    )
    killer = _Killer(cluster, rng, note)
    try:
        cluster.start()
        await fill_keys(cluster, BALLAST, BALLAST_BYTES, prefix="ballast")
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(recorded.run(number))
            await killer.kill(kills)
            with suppress(ClusterError):  # the read-back reports a cluster that is not ready
                await cluster.wait_ready(timeout_s=READY_S)
            recorded.stop()
        troubles = [*killer.troubles, *await _read_back(cluster, recorded)]
    finally:
        await cluster.stop()
    damaged = [replica for replica in cluster.replicas.values() if files.set_aside(replica.data)]
    troubles += [f"{replica.name} found its data damaged after a crash: see {replica.log}" for replica in damaged]
    return recorded, troubles


async def _read_back(cluster: ProcessCluster, recorded: RecordingClients) -> list[str]:
    try:
        cluster.start()
        await cluster.wait_ready(timeout_s=READY_S)
        await recorded.read_back(READ_BACK_S)
    except ClusterError as error:
        return [f"the cluster did not recover within {READY_S:.0f} s: {error}"]
    except TimeoutError:
        return [f"the keys could not be read back within {READ_BACK_S:.0f} s"]
    return []


def crashes_report(result: CrashesResult) -> RenderableType:
    """Return the kills by stage, and the verdict."""
    table = figure_table("stage", "kills")
    for stage in STAGES:
        table.add_row(stage, str(result.count(stage)))
    table.add_row("none of these", str(sum(not crash.under_way for crash in result.crashes)))
    return Group(
        table,
        f"{len(result.crashes)} kills with SIGKILL; {result.migrated_keys} keys compared after each migration",
        *result.verdict.lines(result.acknowledged),
        *first_lines(result.troubles),
        verdict("nothing lost", met=result.correct),
        f"to repeat: python -m tests.torture crashes --kills {len(result.crashes)} --seed {result.seed}",
    )
