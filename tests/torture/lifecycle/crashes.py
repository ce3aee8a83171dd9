"""SIGKILL at random moments, while a cluster does nothing but cut, compact and be given states."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec

from bench.lifecycle.load import Load, puts
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture.faults.history import Judgement, judge
from tests.torture.lifecycle import files
from tests.torture.lifecycle.clients import Traffic
from tests.torture.lifecycle.migration import migrate

NODES = 3
TIGHT: dict[str, int | str] = {"log_slots": 100, "history_revisions": 64}
"""So that all of it happens all the time; a replica that was away for a second or two is given the state."""
BALLAST, BALLAST_BYTES = 160, 100_000
"""A state takes 60 pages: time enough to be killed while it comes."""
MIGRATIONS = 6
"""One kill in so many meets a migration."""
OPENS_S = 30.0
READY_S = 120.0
READ_BACK_S = 300.0


class Crash(msgspec.Struct, frozen=True):
    """One SIGKILL, and what the victim was in the midst of."""

    victim: str
    under_way: list[str]


class Crashes(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    seed: int
    crashes: list[Crash]
    acknowledged: int
    judgement: Judgement
    migrated_keys: int
    troubles: list[str]
    """What nothing excuses: a replica that ended by itself, took its data for damaged, or did not come back; keys that
    a migration lost."""

    def count(self, what: str) -> int:
        """How many kills met this."""
        return sum(what in crash.under_way for crash in self.crashes)

    @property
    def within_limits(self) -> bool:
        """True when nothing was lost, and nobody misbehaved."""
        found = self.judgement
        return not (self.troubles or found.lost or found.illegal or found.backwards or found.silent)


async def measure(directory: Path, *, kills: int, clients: int, seed: int, on_kill: Callable[[Crash], None]) -> Crashes:
    """So many kills in new clusters in `directory`. Raises BenchError or ClusterError."""
    migrations = max(1, kills // MIGRATIONS)
    rng = Random(seed)
    crashes: list[Crash] = []

    def note(crash: Crash) -> None:
        crashes.append(crash)
        on_kill(crash)

    traffic, troubles = await _storm(directory / "tight", kills - migrations, clients, rng, note)

    def note_migrating(victim: str, under_way: list[str]) -> None:
        note(Crash(victim, under_way))

    keys, lost = await migrate(directory / "migrating", migrations, rng, note_migrating)
    return Crashes(
        seed=seed,
        crashes=crashes,
        acknowledged=traffic.acknowledged,
        judgement=judge(traffic.calls),
        migrated_keys=keys,
        troubles=[*troubles, *lost],
    )


class _Storm:
    """Kills replicas of a cluster that runs, and starts them again."""

    def __init__(self, cluster: ProcessCluster, rng: Random, note: Callable[[Crash], None]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._note = note
        self._started: dict[str, float] = {}
        self.troubles: list[str] = []

    async def rage(self, kills: int) -> None:
        """So many."""
        left = kills
        while left > 0:
            names = list(self._cluster.replicas)
            count = self._rng.choices([1, 2, len(names)], [7, 1, 2])[0]  # mostly one, the others go on meanwhile
            victims = self._rng.sample(names, min(count, left))
            left -= len(victims)
            await self._strike(victims)

    async def _strike(self, victims: Sequence[str]) -> None:
        """Wait until the victims have opened their data, and a while; kill them, and start them after another one."""
        for name in victims:
            await self._opened(name)
        await asyncio.sleep(self._rng.choice([self._rng.uniform(0, 0.5), self._rng.uniform(0, 3)]))
        ended = [name for name in self._cluster.replicas if not self._cluster.runs(name)]
        self.troubles += [f"{name} ended by itself: {describe_exit(self._cluster.exit_of(name))}" for name in ended]
        alive = [name for name in victims if name not in ended]
        self._cluster.kill(*alive)
        for name in alive:
            self._note(Crash(name, await asyncio.to_thread(files.under_way, self._cluster.replicas[name].data)))
        await asyncio.sleep(self._rng.choice([0.0, self._rng.uniform(0, 1), self._rng.uniform(1, 3)]))
        self._started |= dict.fromkeys([*alive, *ended], files.now())
        self._cluster.start()

    async def _opened(self, name: str) -> None:
        """Wait until it has opened its data since it was started; not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENS_S):
                data, moment = self._cluster.replicas[name].data, self._started.get(name, 0.0)
                while not files.opened_since(data, moment):  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(POLL_S)


async def _storm(
    directory: Path, kills: int, clients: int, rng: Random, note: Callable[[Crash], None]
) -> tuple[Traffic, list[str]]:
    cluster = ProcessCluster(NODES, directory, settings=TIGHT)
    cluster.prepare()
    traffic = Traffic(lambda: {name: place.url for name, place in cluster.replicas.items()}, rng.randrange(1 << 32))
    storm = _Storm(cluster, rng, note)
    try:
        cluster.start()
        leader = await cluster.wait_ready()
        await Load([cluster.replicas[leader].url], 4, puts(BALLAST, BALLAST_BYTES, prefix="ballast")).run()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(traffic.client(number))
            await storm.rage(kills)
            with suppress(ClusterError):  # that nobody is ready shows when all is read back
                await cluster.wait_ready(timeout_s=READY_S)
            traffic.stop()
        troubles = [*storm.troubles, *await _come_back(cluster, traffic)]
    finally:
        await cluster.stop()
    damaged = [place for place in cluster.replicas.values() if files.set_aside(place.data)]
    troubles += [f"{place.name} took its data for damaged after a mere crash: see {place.log}" for place in damaged]
    return traffic, troubles


async def _come_back(cluster: ProcessCluster, traffic: Traffic) -> list[str]:
    try:
        cluster.start()
        await cluster.wait_ready(timeout_s=READY_S)
        await traffic.read_back(READ_BACK_S)
    except ClusterError as error:
        return [f"the cluster did not come back within {READY_S:.0f} s: {error}"]
    except TimeoutError:
        return [f"the keys could not be read back within {READ_BACK_S:.0f} s"]
    return []
