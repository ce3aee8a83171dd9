"""Backups of a real cluster under load, and new clusters restored from them."""

import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from kvstore.cli import app
from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STORY_S, CallHistory, Ending, HttpClient, NotSent, others, running, until

pytestmark = pytest.mark.cluster

FILLING = 60
"""Number of values of 32 KiB, which make the state several pages long."""


async def kvstore(*arguments: str) -> tuple[int, str]:
    """Return the exit status and the output of a command. It runs in this process: another one takes a second to
    start."""
    result = await asyncio.to_thread(CliRunner(env={"COLUMNS": "300"}).invoke, app, arguments)
    return result.exit_code, result.output


async def backup(cluster: ProcessCluster, name: str, file: Path, *flags: str) -> str:
    code, output = await kvstore("backup", str(file), "--endpoints", cluster.replicas[name].url, *flags)
    assert code == 0, output
    return output


def records(file: Path) -> dict[bytes, bytes]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT key, value FROM records"))


async def put(client: HttpClient, name: str, key: bytes, value: bytes) -> None:
    call = await client.put(name, key, value)
    assert call.ending is Ending.DONE, call.why


@asynccontextmanager
async def counting(cluster: ProcessCluster, name: str) -> AsyncIterator[list[int]]:
    """One writer counts in key `one`, then in key `two`, at replica `name`. Gives the last number that both have."""
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


def test_a_backup_under_load_is_of_one_moment_and_has_every_acknowledged_write(tmp_path: Path) -> None:
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


def test_the_last_acknowledged_write_is_in_a_backup_from_each_replica(tmp_path: Path) -> None:
    """No later write causes it to be stored."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            for name in cluster.replicas:
                async with HttpClient(cluster, CallHistory()) as client:
                    await put(client, leader, b"last", name.encode())
                await backup(cluster, name, tmp_path / f"{name}.db")
                assert records(tmp_path / f"{name}.db") == {b"last": name.encode()}

    asyncio.run(story())


def test_a_replica_without_a_majority_gives_a_stale_backup(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            survivor, *rest = others(cluster, leader := await cluster.wait_ready())
            async with HttpClient(cluster, CallHistory()) as client:
                await put(client, survivor, b"k", b"v")
            cluster.kill(leader, *rest)
            url = cluster.replicas[survivor].url
            code, output = await kvstore("backup", str(tmp_path / "b.db"), "--endpoints", url)
            assert (code, (tmp_path / "b.db").exists()) == (3, False), output
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

    async def new(cluster: ProcessCluster, old_replica: LocalReplica) -> None:
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
                    assert (status.cluster, status.keys) == ("green", 7)
                    assert status.revision > 20
                reply = await client.ask("PUT", "n1", "/kv/0", b"new")
                assert json.loads(reply.body)["revision"] > 20
            logs = [replica.log for replica in cluster.replicas.values()]
            with survivor(old_replica, cluster):
                await until(partial(_all_say, logs, "'n1' is in cluster 'kvstore'"))
            async with HttpClient(cluster, CallHistory()) as client:
                assert (await client.get("n2", b"0")).value == b"new"

    old_replica = asyncio.run(old())
    directory = tmp_path / "new"
    code, output = asyncio.run(
        kvstore("restore", str(tmp_path / "b.db"), "--data", str(directory), "--cluster", "green", "--nodes", "3")
    )
    assert code == 0, output
    cluster = ForkedCluster(3, directory)
    cluster.prepare()
    try:
        asyncio.run(new(cluster, old_replica))
    finally:
        cluster.kill(*filter(cluster.runs, cluster.replicas))


@contextmanager
def survivor(old: LocalReplica, cluster: ProcessCluster) -> Iterator[None]:
    """A replica of the old cluster that comes back with the addresses and the secret of the new one."""
    members = ",".join(f"{name}={replica.peers}" for name, replica in cluster.replicas.items())
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
    """As on several machines, each with the settings that `kvstore serve` gets there. The number that the first run
    prints is forgotten in the last run, so no cluster is founded until the last replica is restored again. Then two
    replicas that are restored again, from the same backup with the same number, found no second cluster (rule 31)."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                await put(client, leader, b"k", b"v")
            await backup(cluster, leader, tmp_path / "b.db")
        fresh = ForkedCluster(3, tmp_path / "fresh", settings={"cluster": "blue"})
        fresh.prepare()

        async def restore(name: str, *flags: str) -> str:
            arguments = ("restore", str(tmp_path / "b.db"), "--config", str(fresh.replicas[name].config), *flags)
            code, output = await kvstore(*arguments)
            assert code == 0, output
            again, refused = await kvstore(*arguments)
            assert (again, "exists and may hold data" in refused) == (2, True), refused
            return output

        try:
            above = re.findall(r"--above \d+", await restore("n1"))[0].split()
            await restore("n2", *above)
            await restore("n3")
            fresh.start()
            async with asyncio.timeout(STORY_S):
                for name, text in (
                    ("n1", "n3 was restored with --above"),
                    ("n3", f"n1 was restored with --above {above[1]} "),
                ):
                    await until(partial(_says, fresh.replicas[name].log, text))
                async with HttpClient(fresh, CallHistory()) as client:
                    await until(partial(_is_not_ready, client, "n2", "found no cluster with it: n3"))
                fresh.kill("n3")
                shutil.rmtree(fresh.replicas["n3"].data)
                await restore("n3", *above)
                fresh.start(["n3"])
                await fresh.wait_ready()
                async with HttpClient(fresh, CallHistory()) as client:
                    for name in fresh.replicas:
                        assert (await client.get(name, b"k")).value == b"v"
                    fresh.kill("n1", "n2")
                    for name in ("n1", "n2"):
                        shutil.rmtree(fresh.replicas[name].data)
                        await restore(name, *above)
                    fresh.start(["n1", "n2"])
                    for name in ("n1", "n2"):
                        await until(partial(_is_not_ready, client, name, f"{name} has lost its data"))
        finally:
            fresh.kill(*filter(fresh.runs, fresh.replicas))

    asyncio.run(story())


async def _is_not_ready(client: HttpClient, name: str, why: str) -> bool:
    try:
        reply = await client.ask("GET", name, "/readyz")
    except NotSent:
        return False  # it does not listen yet
    return reply.status == 503 and why in reply.body.decode()


async def _says(log: Path, text: str) -> bool:
    return any(text in found.read_text() for found in log.parent.glob(log.name))


class Numbers(NamedTuple):
    """Numbers that a client remembers of a cluster. All but `tag`, which is that of the key k, are its last ones."""

    tag: int
    lease: int
    fence: int
    watched: int
    version: int
    cursor: str


async def use(client: HttpClient) -> Numbers:
    """Use the cluster, and return the numbers of it. The key k is not changed."""

    async def document(method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        reply = await client.ask(method, "n1", target, body)
        assert reply.status in {200, 201}, reply.body
        decoded: dict[str, Any] = json.loads(reply.body)
        return decoded

    page = await document("GET", "/kv/?limit=1")
    tag = page["records"][0]["revision"]
    lease = (await document("POST", "/leases", b'{"ttl_s": 60}'))["id"]
    fence = (await document("POST", "/locks/deploy", b'{"ttl_s": 60}'))["fence"]
    for _ in range(20):
        await document("PUT", "/kv/l", b"later")
    last = await document("PUT", "/kv/l", b"latest")
    return Numbers(tag, lease, fence, last["revision"], last["version"], page["cursor"])


async def refuse(client: HttpClient, old: Numbers) -> None:
    """Every number that a client remembers of an earlier cluster is refused."""

    async def status(method: str, target: str, body: bytes | None = None, **headers: str) -> int:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await client.ask(method, "n2", target, body, fields)).status

    for tag in (old.tag, old.watched):
        assert await status("PUT", "/kv/k", b"x", If_Match=f'"{tag}"') == 412
    assert await status("POST", f"/leases/{old.lease}/keepalive") == 404
    assert await status("PUT", f"/kv/x?lease={old.lease}", b"x") == 404
    assert await status("PUT", f"/kv/x?lock=deploy&fence={old.fence}", b"x") == 412
    assert await status("PUT", "/kv/x", b"x", Idempotency_Key=f"{old.lease}.1") == 410
    assert await status("GET", "/watch?prefix=", Last_Event_ID=str(old.watched)) == 410
    assert await status("GET", f"/watch?prefix=&from_revision={old.watched}") == 410
    assert await status("GET", f"/kv/k?revision={old.tag}") == 410
    assert await status("GET", f"/kv/?cursor={old.cursor}") == 410
    for target, number in (("revision", old.tag), ("version", old.version)):
        body = {"compare": [{"key": "l", target: number}], "then": [{"put": {"key": "l", "value": "x"}}]}
        reply = await client.ask("POST", "n2", "/txn", json.dumps(body).encode())
        assert json.loads(reply.body)["succeeded"] is False
    assert (await client.get("n2", b"k")).value == b"v"


def test_a_restored_cluster_gives_out_no_number_again_and_accepts_no_old_one(tmp_path: Path) -> None:
    """Also if the same backup was restored before."""

    async def story() -> None:
        lives: list[Numbers] = []
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            async with HttpClient(cluster, CallHistory()) as client:
                await put(client, leader, b"k", b"v")
                await put(client, leader, b"l", b"v")
                await backup(cluster, leader, tmp_path / "b.db")
                lives.append(await use(client))
        for name in ("first", "second"):
            flags = ("--data", str(tmp_path / name), "--cluster", name, "--nodes", "3")
            code, output = await kvstore("restore", str(tmp_path / "b.db"), *flags)
            assert code == 0, output
            restored = ForkedCluster(3, tmp_path / name)
            restored.prepare()
            restored.start()
            try:
                async with asyncio.timeout(STORY_S):
                    await restored.wait_ready()
                    async with HttpClient(restored, CallHistory()) as client:
                        for old in lives:
                            await refuse(client, old)
                        new = await use(client)
            finally:
                restored.kill(*filter(restored.runs, restored.replicas))
            least = max(max(old[:4]) for old in lives)
            assert all(number > least for number in new[:4])
            assert new.version > max(old.version for old in lives)
            lives.append(new)

    asyncio.run(story())
