"""A running cluster refuses foreign replicas and malformed peers, logs the reason, and serves on."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from kvstore.api.framing import frame
from kvstore.peers.handshake_messages import MAX_HANDSHAKE_BYTES
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STEADY, STORY_S, CallHistory, Ending, HttpClient, others, running, until

pytestmark = pytest.mark.cluster


def command(cluster: ProcessCluster, name: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "kvstore", "serve", "--config", str(cluster.replicas[name].config), *flags]


async def refused(cluster: ProcessCluster, name: str, *flags: str) -> str:
    """Return the output of a replica that refuses to start."""
    process = await asyncio.create_subprocess_exec(
        *command(cluster, name, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1
    assert b"Traceback" not in output
    return output.decode().splitlines()[-1]


async def reign(cluster: ProcessCluster) -> str:
    """The ballot of the leader that all running replicas follow."""
    await cluster.wait_ready(filter(cluster.runs, cluster.replicas))
    async with cluster.status_client() as client:
        statuses = await cluster.statuses(client)
    (ballot,) = {status.ballot for name, status in statuses.items() if status and cluster.runs(name)}
    return ballot


async def assert_unharmed(cluster: ProcessCluster, ballot: str) -> None:
    """The same leader as before, and every running replica serves."""
    assert await reign(cluster) == ballot
    history = CallHistory()
    async with HttpClient(cluster, history) as client:
        for name in filter(cluster.runs, cluster.replicas):
            call = await client.put(name, b"k0")
            assert call.ending is Ending.DONE, call.why
    await history.verify(cluster, least=2)


def test_a_second_process_on_the_same_data_does_not_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            ballot = await reign(cluster)
            holder = f"process {cluster.process_id('n1')}, node n1 of cluster kvstore"
            said = await refused(cluster, "n1")
            assert f"{cluster.replicas['n1'].data} is in use by {holder}: stop that process" in said
            await assert_unharmed(cluster, ballot)

    asyncio.run(story())


def test_data_of_another_cluster_or_node_is_not_used(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            ballot = await reign(cluster)
            owner, other = others(cluster, await cluster.wait_ready())
            cluster.kill(owner)
            data = f"holds the data of node {owner} of cluster kvstore, but this is node"
            assert f"{data} {owner} of cluster blue" in await refused(cluster, owner, "--cluster", "blue")
            assert f"{data} {other} of cluster kvstore" in await refused(cluster, owner, "--node", other)
            cluster.start([owner])
            await assert_unharmed(cluster, ballot)

    asyncio.run(story())


@contextmanager
def intruder(log: Path, arguments: list[str]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_replicas_that_began_with_different_members_are_no_cluster_whatever_they_are_told_later(
    tmp_path: Path,
) -> None:
    """A majority of the ones need not meet a majority of the others."""
    cluster = ProcessCluster(3, tmp_path / "cluster")
    cluster.prepare()
    two = ",".join(f"{name}={cluster.replicas[name].peers}" for name in ("n1", "n2"))
    logs = [tmp_path / "log", cluster.replicas["n2"].log]

    async def story() -> None:
        async with asyncio.timeout(STORY_S):
            await until(partial(_all_say, logs, "refused", "has members=n1,n2"))

    try:
        with intruder(logs[0], command(cluster, "n1", f"--members={two}")):
            cluster.start(["n2"])
            asyncio.run(story())
        said = asyncio.run(refused(cluster, "n1"))
        assert "was created to found a cluster of n1,n2, but the settings name n1,n2,n3: start this" in said
    finally:
        cluster.kill("n2")


INTRUDERS = [
    (["--secret-file={}/secret"], "have different secrets: give all replicas the same `secret`"),
    (["--cluster=blue", "--data={}/blue"], "is in cluster 'blue'"),
    (["--data={}/empty"], "has other data than before"),
]


def test_intruders_in_the_place_of_a_member_are_refused_in_all_logs(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not the secret of this cluster")

    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            ballot = await reign(cluster)
            member, *rest = others(cluster, leader := await cluster.wait_ready())
            cluster.kill(member)
            for flags, reason in INTRUDERS:
                logs = [tmp_path / "log", *(cluster.replicas[name].log for name in (leader, *rest))]
                all_say_why = partial(_all_say, logs, "refused", reason)
                with intruder(logs[0], command(cluster, member, *(flag.format(tmp_path) for flag in flags))):
                    await until(all_say_why)
                    await assert_unharmed(cluster, ballot)
            cluster.start([member])
            await assert_unharmed(cluster, ballot)

    asyncio.run(story())


async def _all_say(logs: list[Path], *parts: str) -> bool:
    return all(any(all(part in line for part in parts) for line in log.read_text().splitlines()) for log in logs)


STRANGE_BYTES = [
    (frame(b"\xc1 garbage"), "not a handshake"),
    (frame(os.urandom(MAX_HANDSHAKE_BYTES)), "not a handshake"),
    (b"\xff" * (1 << 20), "frame of 4294967295 bytes, at most 1024 are allowed"),
    (frame(bytes(MAX_HANDSHAKE_BYTES + 1)), "frame of 1025 bytes, at most 1024 are allowed"),
    (b"PUT /kv/k HTTP/1.1\r\n\r\n", "at most 1024 are allowed: only replicas of one release may connect here"),
]


def test_bytes_that_no_peer_sends_are_refused_with_the_reason(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            ballot = await reign(cluster)
            for place in cluster.replicas.values():
                for sent, reason in STRANGE_BYTES:
                    reader, writer = await asyncio.open_connection(*place.peers)
                    writer.write(sent)
                    assert reason.encode() in await reader.read()
                    writer.close()
            logs = [place.log for place in cluster.replicas.values()]
            assert await _all_say(logs, "link from 'an unknown node'", "this replica refused", "not a handshake")
            assert await _all_say(
                logs, "link from 'an unknown node'", "this replica refused", "frame of 4294967295 bytes"
            )
            await assert_unharmed(cluster, ballot)

    asyncio.run(story())
