"""From one release to the next: replica by replica under load, and on the files that an older one left."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kvstore.api.commands import CommandBatch, Put, pack_batch
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import ProcessCluster
from paxos import wire
from paxos.types import Ballot, PValue, pack
from storage.directory import DATA_FILE
from storage.sqlite import open_storage
from tests.cluster import next_release
from tests.cluster.harness import STORY_S, BackgroundLoad, CallHistory, Ending, HttpClient, load, until
from tests.unit.storage.version_1 import make_version_1

pytestmark = pytest.mark.cluster


class Upgraded(ProcessCluster):
    """A cluster of which some replicas run the next release."""

    def __init__(self, directory: Path) -> None:
        super().__init__(3, directory)
        self.upgraded: set[str] = set()

    def command(self, name: str) -> list[str]:
        program = "tests.cluster.next_release" if name in self.upgraded else "kvstore"
        return [sys.executable, "-m", program, *super().command(name)[3:]]

    async def replace(self, name: str, running_load: BackgroundLoad) -> None:
        """Stop `name`, and start it as the other release, under load."""
        await running_load.more(100)
        await self.stop([name])
        self.upgraded ^= {name}
        self.start([name])
        await self.wait_ready()

    async def versions(self) -> set[int | None]:
        """Return the versions of the messages on all links."""
        async with self.status_client() as client:
            statuses = await self.statuses(client)
        return {
            member.wire_version
            for name, status in statuses.items()
            for member in (status.members if status is not None else ())
            if member.name != name
        }


async def writer(cluster: ProcessCluster, stopping: asyncio.Event) -> int:
    """Writes one key through one replica after the other, as long as they run, and fails with the first failure."""
    written = 0
    async with HttpClient(cluster, CallHistory()) as client:
        while not stopping.is_set():
            for name in cluster.replicas:
                call = await client.put(name, b"written", b"%d" % written)
                if call.ending is Ending.NOT_SENT:
                    continue  # it is being replaced
                assert call.ending is Ending.DONE, call.why
                written += 1
    return written


@pytest.mark.slow
def test_a_rolling_upgrade_to_another_version_of_messages_fails_no_request_and_so_does_the_way_back(
    tmp_path: Path,
) -> None:
    cluster = Upgraded(tmp_path / "cluster")
    cluster.prepare()

    async def story() -> None:
        history, stopping = CallHistory(), asyncio.Event()
        cluster.start()
        await cluster.wait_ready()
        async with load(cluster, history) as running_load:
            writing = asyncio.create_task(writer(cluster, stopping))
            for name in cluster.replicas:
                await cluster.replace(name, running_load)
            assert cluster.upgraded == set(cluster.replicas)
            await until(lambda: _speak(cluster, next_release.VERSION))
            assert any(next_release.FIRST_WORD in place.log.read_text() for place in cluster.replicas.values())
            await running_load.more(100)
            for name in cluster.replicas:
                await cluster.replace(name, running_load)
            await until(lambda: _speak(cluster, wire.VERSION))
            stopping.set()
            assert await writing > 100
        assert running_load.troubles == []
        assert running_load.given_up == []
        await history.verify(cluster, least=300)

    try:
        asyncio.run(asyncio.wait_for(story(), STORY_S))
        for place in cluster.replicas.values():
            assert not any(
                alarm in place.log.read_text() for alarm in (" ERROR ", " CRITICAL ", "Traceback", "was refused")
            )
    finally:
        cluster.kill(*filter(cluster.runs, cluster.replicas))


async def _speak(cluster: Upgraded, version: int) -> bool:
    return await cluster.versions() == {version}


def test_a_cluster_goes_on_with_the_files_of_the_first_schema(tmp_path: Path) -> None:
    """The first schema had a log and no state, and each replica knew another chosen prefix."""
    ballot = Ballot(4, "n2")
    batches = [
        CommandBatch("n1", 5, number, number, [Put(b"k%d" % (number % 5), b"v%d" % number)]) for number in range(1, 21)
    ]
    log = [PValue(slot, ballot, pack([pack_batch(batch)])) for slot, batch in enumerate(batches, 1)]
    cluster = ForkedCluster(3, tmp_path / "cluster")
    for name, last, chosen in (("n1", 20, 17), ("n2", 20, 20), ("n3", 11, 9)):
        make_version_1(
            cluster.replicas[name].data,
            cluster="kvstore",
            node=name,
            incarnation=70 + last + chosen,
            promised=ballot,
            chosen=chosen,
            entries=log[:last],
        )
    cluster.prepare()

    async def story() -> None:
        cluster.start()
        async with asyncio.timeout(STORY_S):
            await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                for name in cluster.replicas:
                    for number in range(16, 21):
                        reply = await client.ask("GET", name, f"/kv/k{number % 5}")
                        assert (reply.body, reply.headers["KV-Revision"]) == (b"v%d" % number, str(number))
                reply = await client.ask("PUT", "n1", "/kv/k0", b"new")
                assert reply.headers["ETag"] == '"21"'
            for name in cluster.replicas:
                await cluster.restart(name)
                await cluster.wait_ready()

    try:
        asyncio.run(story())
        assert not any(" CRITICAL " in place.log.read_text() for place in cluster.replicas.values())
    finally:
        cluster.kill(*filter(cluster.runs, cluster.replicas))


def test_files_of_a_newer_schema_are_refused_by_name(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path / "cluster")
    cluster.prepare()
    data = cluster.replicas["n1"].data
    open_storage(data, "kvstore", "n1", ["n1"]).close()
    with closing(sqlite3.connect(data / DATA_FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (data / DATA_FILE).read_bytes()
    command = subprocess.run(cluster.command("n1"), capture_output=True, check=False)
    assert command.returncode == 1
    assert b"was written by a newer version of this program (schema 99, this version knows up to" in command.stderr
    assert (data / DATA_FILE).read_bytes() == before
