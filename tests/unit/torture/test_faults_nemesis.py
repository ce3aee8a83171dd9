"""Faults of processes and links, on processes that only sleep."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from kvstore.testing.fault_proxies import FaultProxies, Pair
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.faults.nemesis import Nemesis
from tests.torture.faults.plan import Fault, FaultPlan, Reach

PLAN = FaultPlan(
    fault=Fault.KILL,
    hasty=True,
    calm_s=0.0,
    lasting_s=0.0,
    reach=Reach.MINORITY,
    leader_first=True,
    order=("n1", "n2", "n3", "n4", "n5"),
    outward=True,
    on_write=False,
    delay_ms=1,
    beat_s=0.0,
)


class Sleepers(ProcessCluster):
    """Its replicas are processes that sleep."""

    def start(self, names: Iterable[str] | None = None) -> None:
        for name in self.replicas if names is None else names:
            if not self.runs(name):
                self._processes[name] = subprocess.Popen(["sleep", "60"])


@asynccontextmanager
async def running_nemesis(directory: Path) -> AsyncIterator[tuple[Nemesis, Sleepers, FaultProxies]]:
    cluster = Sleepers(5, directory)
    cluster.start()
    try:
        async with FaultProxies(cluster.replicas) as links:
            yield Nemesis(cluster, links, time.monotonic), cluster, links
    finally:
        cluster.kill(*cluster.replicas)


def test_killed_processes_are_replaced_and_the_others_stay(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_nemesis(tmp_path) as (nemesis, cluster, _):
            before = {name: cluster.process_id(name) for name in cluster.replicas}
            await nemesis.make(PLAN, "n4")
            after = {name: cluster.process_id(name) for name in cluster.replicas}
            assert {name for name in cluster.replicas if before[name] != after[name]} == {"n4", "n1"}
            (made,) = nemesis.faults
            assert (made.words, made.effect, made.what) == ("kill n4 n1", 2, "processes killed")
            assert (nemesis.kills, nemesis.troubles) == (2, [])
            assert all(map(cluster.runs, cluster.replicas))

    asyncio.run(story())


def test_a_storm_kills_again_and_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_nemesis(tmp_path) as (nemesis, _, __):
            await nemesis.make(msgspec.structs.replace(PLAN, fault=Fault.STORM, lasting_s=0.1, beat_s=0.01), None)
            assert nemesis.faults[0].effect == nemesis.kills
            assert nemesis.kills > 2

    asyncio.run(story())


def test_a_pause_stops_the_processes_and_ends(tmp_path: Path) -> None:
    def state(process: int) -> str:
        return Path(f"/proc/{process}/stat").read_text().split()[2]

    async def story() -> None:
        async with running_nemesis(tmp_path) as (nemesis, cluster, _):
            pause = msgspec.structs.replace(PLAN, fault=Fault.PAUSE, lasting_s=0.2, reach=Reach.ALL)
            making = asyncio.create_task(nemesis.make(pause, None))
            while not nemesis.paused:  # noqa: ASYNC110 - a set is no event
                await asyncio.sleep(0)
            assert nemesis.paused == set(cluster.replicas)
            await making
            assert (nemesis.faults[0].effect, nemesis.paused) == (5, set())
            assert all(state(cluster.process_id(name)) != "T" for name in cluster.replicas)

    asyncio.run(story())


def test_a_replica_that_ends_by_itself_is_recorded_and_restarted(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_nemesis(tmp_path) as (nemesis, cluster, _):
            ProcessCluster.kill(cluster, "n3")  # not by the nemesis
            nemesis.restart_ended()
            assert cluster.runs("n3")
            assert len(nemesis.troubles) == 1
            assert nemesis.troubles[0].startswith("n3 ended by itself at ")
            assert nemesis.troubles[0].endswith("killed by SIGKILL")

    asyncio.run(story())


def cut_by(links: FaultProxies) -> set[Pair]:
    return {pair for pair, way in links.links.items() if way.is_cut}


async def cut_during(directory: Path, plan: FaultPlan) -> set[Pair]:
    """The ways that `plan` cuts. All of them are healed afterwards."""
    async with running_nemesis(directory) as (nemesis, _, links):
        making = asyncio.create_task(nemesis.make(plan, "n1"))
        while not (cut := cut_by(links)):  # noqa: ASYNC110 - a cut sets no event
            await asyncio.sleep(0)
        await making
        assert cut_by(links) == set()
        assert nemesis.faults[0].effect == 0  # nobody sent anything: it did not land
        return cut


def test_a_partition_cuts_both_directions(tmp_path: Path) -> None:
    inside, rest = {"n1", "n2"}, {"n3", "n4", "n5"}
    across = {(one, other) for one in inside for other in rest}
    plan = msgspec.structs.replace(PLAN, fault=Fault.PARTITION)
    assert asyncio.run(cut_during(tmp_path, plan)) == across | {(other, one) for one, other in across}


def test_a_one_way_cut_takes_one_direction(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(PLAN, fault=Fault.ONE_WAY, reach=Reach.ONE)
    sent = {("n1", other) for other in ("n2", "n3", "n4", "n5")}
    assert asyncio.run(cut_during(tmp_path, plan)) == sent
    deaf = msgspec.structs.replace(plan, outward=False)
    assert asyncio.run(cut_during(tmp_path, deaf)) == {(other, one) for one, other in sent}


def test_in_a_ring_only_the_next_replica_receives(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(PLAN, fault=Fault.ONE_WAY, reach=Reach.ALL)
    cut = asyncio.run(cut_during(tmp_path, plan))
    heard = {("n1", "n2"), ("n2", "n3"), ("n3", "n4"), ("n4", "n5"), ("n5", "n1")}
    assert len(cut) == 15
    assert not cut & heard
