"""A backup of a cluster under load is one of its moments, and a new cluster begins there."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STORY_S, CallHistory, Ending, HttpClient, others, running, until

pytestmark = pytest.mark.cluster

FILLING = 60
"""Values of 32 KiB: the state takes several pages."""


async def kvstore(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kvstore", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def backup(cluster: ProcessCluster, name: str, file: Path, *flags: str) -> str:
    code, said = await kvstore("backup", str(file), "--endpoints", cluster.replicas[name].url, *flags)
    assert code == 0, said
    return said


def records(file: Path) -> dict[bytes, bytes]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT key, value FROM records"))


async def put(client: HttpClient, name: str, key: bytes, value: bytes) -> None:
    call = await client.put(name, key, value)
    assert call.ending is Ending.DONE, call.why


@asynccontextmanager
async def counting(cluster: ProcessCluster, name: str) -> AsyncIterator[list[int]]:
    """One writer counts in `one`, then in `two`, through `name`; how far both have come."""
    done = [0]
    stopping = asyncio.Event()

    async def count() -> None:
        async with HttpClient(cluster, CallHistory()) as client:
            while not stopping.is_set():
                number = b"%d" % (done[0] + 1)
                await put(client, name, b"one", number)
                await put(client, name, b"two", number)
                done[0] += 1

    counter = asyncio.create_task(count())
    try:
        await until(partial(_is_beyond, done, 3))
        yield done
    finally:
        stopping.set()
        await counter


async def _is_beyond(done: list[int], number: int) -> bool:
    return done[0] > number


def test_a_backup_from_any_replica_under_load_is_one_moment_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                for number in range(FILLING):
                    await put(client, leader, b"filling %d" % number, bytes([number]) * 32768)
            async with counting(cluster, leader) as done:
                for name in cluster.replicas:
                    before = done[0]
                    await backup(cluster, name, tmp_path / f"{name}.db")
                    found = records(tmp_path / f"{name}.db")
                    one, two = int(found.pop(b"one")), int(found.pop(b"two"))
                    assert one - two in {0, 1}
                    assert two >= before
                    assert found == {b"filling %d" % number: bytes([number]) * 32768 for number in range(FILLING)}

    asyncio.run(story())


def test_a_write_that_was_just_acknowledged_is_in_a_backup_from_each_replica(tmp_path: Path) -> None:
    """Nothing follows it that would have it stored."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            for name in cluster.replicas:
                async with HttpClient(cluster, CallHistory()) as client:
                    await put(client, leader, b"last", name.encode())
                await backup(cluster, name, tmp_path / f"{name}.db")
                assert records(tmp_path / f"{name}.db") == {b"last": name.encode()}

    asyncio.run(story())


def test_a_lone_survivor_gives_a_backup_of_what_it_has(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            survivor, *rest = others(cluster, leader := await cluster.wait_ready())
            async with HttpClient(cluster, CallHistory()) as client:
                await put(client, survivor, b"k", b"v")
            cluster.kill(leader, *rest)
            url = cluster.replicas[survivor].url
            code, said = await kvstore("backup", str(tmp_path / "b.db"), "--endpoints", url)
            assert (code, (tmp_path / "b.db").exists()) == (3, False), said
            await backup(cluster, survivor, tmp_path / "b.db", "--consistency", "stale")
            assert records(tmp_path / "b.db") == {b"k": b"v"}

    asyncio.run(story())


def test_a_restored_cluster_begins_with_the_backup_and_refuses_the_old_one(tmp_path: Path) -> None:
    async def old() -> LocalReplica:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                for number in range(20):
                    await put(client, leader, b"%d" % (number % 7), b"v%d" % number)
            await backup(cluster, leader, tmp_path / "b.db")
            return cluster.replicas["n1"]

    async def new(cluster: ProcessCluster, old_place: LocalReplica) -> None:
        async with asyncio.timeout(STORY_S):
            cluster.start()
            await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client, cluster.status_client() as asking:
                for name in cluster.replicas:
                    for number in range(13, 20):
                        call = await client.get(name, b"%d" % (number % 7))
                        assert call.value == b"v%d" % number
                    status = (await cluster.statuses(asking))[name]
                    assert status is not None
                    assert (status.cluster, status.keys, status.revision) == ("green", 7, 20)
                reply = await client.ask("PUT", "n1", "/kv/0", b"new")
                assert reply.headers["ETag"] == '"21"'
            logs = [place.log for place in cluster.replicas.values()]
            with survivor(old_place, cluster):
                await until(partial(_all_say, logs, "'n1' is in cluster 'kvstore'"))
            async with HttpClient(cluster, CallHistory()) as client:
                assert (await client.get("n2", b"0")).value == b"new"

    old_place = asyncio.run(old())
    directory = tmp_path / "new"
    code, said = asyncio.run(
        kvstore("restore", str(tmp_path / "b.db"), "--data", str(directory), "--cluster", "green", "--nodes", "3")
    )
    assert code == 0, said
    cluster = ProcessCluster(3, directory)
    cluster.prepare()
    try:
        asyncio.run(new(cluster, old_place))
    finally:
        cluster.kill(*filter(cluster.runs, cluster.replicas))


@contextmanager
def survivor(old: LocalReplica, cluster: ProcessCluster) -> Iterator[None]:
    """A replica of the old cluster that comes back, and was told the addresses of the new one and its secret."""
    members = ",".join(f"{name}={place.peers}" for name, place in cluster.replicas.items())
    flags = [f"--members={members}", f"--secret-file={cluster.directory / 'secret'}", f"--peer-listen={old.peers}"]
    command = [sys.executable, "-m", "kvstore", "serve", "--config", str(old.config), *flags]
    with old.log.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _all_say(logs: list[Path], text: str) -> bool:
    return all(text in log.read_text() for log in logs if log.stem != "n1")


def test_nodes_that_are_restored_one_by_one_are_one_cluster(tmp_path: Path) -> None:
    """As on machines of their own, with the settings that `serve` gets."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                await put(client, leader, b"k", b"v")
            await backup(cluster, leader, tmp_path / "b.db")
        fresh = ProcessCluster(3, tmp_path / "fresh", settings={"cluster": "blue"})
        fresh.prepare()
        try:
            for place in fresh.replicas.values():
                code, said = await kvstore("restore", str(tmp_path / "b.db"), "--config", str(place.config))
                assert code == 0, said
                code, said = await kvstore("restore", str(tmp_path / "b.db"), "--config", str(place.config))
                assert (code, "exists, and nothing is restored over" in said) == (2, True), said
            fresh.start()
            async with asyncio.timeout(STORY_S):
                await fresh.wait_ready()
                async with HttpClient(fresh, CallHistory()) as client:
                    for name in fresh.replicas:
                        assert (await client.get(name, b"k")).value == b"v"
        finally:
            fresh.kill(*filter(fresh.runs, fresh.replicas))

    asyncio.run(story())
