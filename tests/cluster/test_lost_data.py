"""Data directories that are removed under running replicas, and first starts with members missing (rule 30)."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from kvstore.api.queries import Consistency
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STORY_S, CallHistory, Ending, HttpClient, NotSent, started, until
from tests.cluster.test_members import assert_takes_writes, detail, voters

pytestmark = pytest.mark.cluster


@asynccontextmanager
async def three(
    directory: Path, names: Collection[str] = ("n1", "n2", "n3"), **settings: int | str
) -> AsyncIterator[ProcessCluster]:
    """Run a cluster of three whose logs may have errors, and start `names` of it. Wait until the cluster is ready if
    these are all."""
    cluster = ForkedCluster(3, directory / "cluster", settings=settings)
    cluster.prepare()
    with started(cluster, names):
        async with asyncio.timeout(STORY_S):
            if len(names) == len(cluster.replicas):
                await cluster.wait_ready()
            yield cluster


async def ended(cluster: ProcessCluster, *names: str) -> None:
    """Wait until these replicas have ended by themselves."""

    async def all_ended() -> bool:
        return not any(map(cluster.runs, names))

    await until(all_ended)


async def says(cluster: ProcessCluster, name: str, text: str) -> None:
    """Wait until `/readyz` of a replica has this text."""

    async def does() -> bool:
        try:
            return text in await detail(cluster, name, "/readyz")
        except NotSent:
            return False  # it does not listen yet

    await until(does)


def test_replicas_whose_data_is_removed_stop_and_found_no_second_cluster(tmp_path: Path) -> None:
    """The removal of the data of two of three is reported at once, loses no acknowledged write, and is undone when the
    directories are put back."""

    async def story() -> None:
        history = CallHistory()
        async with three(tmp_path) as cluster, HttpClient(cluster, history) as client:
            assert (await client.put("n1", b"k", b"v")).ending is Ending.DONE
            aside = tmp_path / "aside"
            aside.mkdir()
            for name in ("n1", "n2"):
                cluster.replicas[name].data.rename(aside / name)
            await ended(cluster, "n1", "n2")
            for name in ("n1", "n2"):
                log = cluster.replicas[name].log.read_text()
                assert "was removed while the replica ran" in log
                assert str(cluster.replicas[name].data) in log
            cluster.start(["n1", "n2"])
            for name in ("n1", "n2"):
                await says(cluster, name, "known to n3 with other data")
                await until(partial(_logs, cluster, name, f"{name} has lost its data, which n3 knows"))
                call = await client.get(name, b"k")
                assert call.ending is Ending.FAILED, call.why
            assert (await client.get("n3", b"k", Consistency.STALE)).value == b"v"
            await cluster.stop(["n1", "n2"])
            for name in ("n1", "n2"):
                shutil.rmtree(cluster.replicas[name].data)
                (aside / name).rename(cluster.replicas[name].data)
            cluster.start(["n1", "n2"])
            await cluster.wait_ready()
            for name in cluster.replicas:
                assert (await client.get(name, b"k")).value == b"v"

    asyncio.run(story())


def test_a_first_start_waits_for_all_founding_members(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, names=["n1", "n2"]) as cluster:
            await says(cluster, "n1", "and waits for n3")
            await says(cluster, "n2", "and waits for n3")
            await until(lambda: _logs(cluster, "n1", "awaiting the answer of n3"))
            cluster.start(["n3"])
            await cluster.wait_ready()
            await assert_takes_writes(cluster, ["n1", "n2", "n3"])

    asyncio.run(story())


def test_an_operator_may_start_without_a_founding_member_which_joins_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, names=["n1", "n2"], bootstrap_without="n3") as cluster:
            await cluster.wait_ready(["n1", "n2"])
            await assert_takes_writes(cluster, ["n1", "n2"])
            cluster.start(["n3"])
            assert voters(await cluster.wait_joined("n3")) == ["n1", "n2", "n3"]
            await cluster.wait_ready()
            cluster.kill("n1")
            await cluster.wait_ready(["n2", "n3"])
            await assert_takes_writes(cluster, ["n2", "n3"])

    asyncio.run(story())


async def _logs(cluster: ProcessCluster, name: str, text: str) -> bool:
    return text in cluster.replicas[name].log.read_text()
