"""Clusters in a directory that stays: started and ended by `ProcessCluster`, and by `kvstore cluster`."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvstore.api.membership import MemberRole
from kvstore.client import Client
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster

pytestmark = pytest.mark.cluster


def test_a_wait_that_ends_while_the_processes_live_says_what_is_missing(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ForkedCluster(1, tmp_path)
        cluster.prepare()
        cluster.start()
        try:
            cluster.pause("n1")
            with pytest.raises(NotReadyError, match="n1 does not answer yet: it may be replaying its log"):
                await cluster.wait_ready(timeout_s=0)
            assert cluster.runs("n1")
        finally:
            assert await cluster.stop() == []

    asyncio.run(story())


def test_a_cluster_starts_survives_a_kill_and_has_its_data_in_the_next_run(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ForkedCluster(3, tmp_path)
        cluster.prepare()
        cluster.start()
        try:
            leader = await cluster.wait_ready()
            async with Client(cluster.endpoints) as client:
                await client.put("k", b"1")
                cluster.kill(leader)
                assert cluster.exit_of(leader) == -signal.SIGKILL
                rest = [name for name in cluster.replicas if name != leader]
                assert await cluster.wait_ready(rest) in rest
                cluster.start([leader])
                await cluster.wait_ready()
                cluster.pause(rest[0])
                cluster.resume(rest[0])
                await cluster.restart(rest[0])
                await cluster.wait_ready()
                await client.put("k", b"2")
            assert await cluster.stop() == []
            assert [cluster.exit_of(name) for name in cluster.replicas] == [0, 0, 0]
            cluster.start()
            await cluster.wait_ready()
            async with Client(cluster.endpoints) as client:
                record = await client.get("k")
                assert record is not None
                assert record.value == b"2"
        finally:
            await cluster.stop()

    asyncio.run(story())


def test_members_that_were_added_or_removed_are_known_to_the_next_run(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ForkedCluster(3, tmp_path)
        cluster.prepare()
        cluster.start()
        try:
            await cluster.wait_ready()
            await cluster.add("n4")
            await cluster.wait_joined("n4")
            async with Client(cluster.endpoints) as client:
                await client.put("k", b"1")
            await cluster.remove("n2")
            assert not cluster.runs("n2")
            await cluster.add("w1", MemberRole.WITNESS)
            await cluster.wait_joined("w1")
        finally:
            await cluster.stop()
        cluster = ForkedCluster(3, tmp_path)
        joins = {name: replica.joins for name, replica in cluster.replicas.items()}
        assert joins == {"n1": False, "n3": False, "n4": True, "w1": True}
        cluster.prepare()
        cluster.start()
        try:
            await cluster.wait_ready()
            async with Client([cluster.replicas["n4"].url]) as client:
                record = await client.get("k")
            assert record is not None
            assert record.value == b"1"
            await cluster.add("n2")
            await cluster.wait_joined("n2")
        finally:
            await cluster.stop()
        assert ForkedCluster(3, tmp_path).replicas["n2"].joins

    asyncio.run(story())


@pytest.mark.parametrize("kind", [ProcessCluster, ForkedCluster])
def test_a_replica_that_cannot_start_ends_the_wait_with_its_last_line(
    tmp_path: Path, kind: type[ProcessCluster]
) -> None:
    async def story() -> None:
        cluster = kind(1, tmp_path, settings={"lease_ms": 20})
        cluster.prepare()
        cluster.start()
        with pytest.raises(ClusterError, match=r"n1 ended during its start \(exit status [12]\): kvstore: lease_ms"):
            await cluster.wait_ready()

    asyncio.run(story())


@contextmanager
def command(tmp_path: Path, cluster: ProcessCluster, stderr: int | None = None) -> "Iterator[subprocess.Popen[str]]":
    """Run `kvstore cluster` of one replica with the ports of `cluster`. A test that fails does not wait for its end."""
    first = cluster.replicas["n1"]
    ports = ["--port", str(first.listen.port), "--peer-port", str(first.peers.port)]
    with subprocess.Popen(
        [sys.executable, "-m", "kvstore", "cluster", "--nodes", "1", "--data", str(tmp_path), *ports],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=os.environ | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """Return the output up to the line that contains `text`."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if text in line:
            return lines
    raise AssertionError(f"the output ended without {text!r}:\n{lines}")


def test_the_command_says_what_to_try_locks_its_directory_reports_a_death_and_stops(tmp_path: Path) -> None:
    first = ProcessCluster(1, tmp_path)
    with command(tmp_path, first) as process:
        greeting = read_until(process, "Ctrl-C")
        assert greeting.count("curl ") == 2
        replica = re.search(r"n1  http://127.0.0.1:\d+  peers 127.0.0.1:\d+  process (\d+)  leads", greeting)
        assert replica is not None
        before = first.replicas["n1"].config.read_text()
        with command(tmp_path, ProcessCluster(1, tmp_path), stderr=subprocess.STDOUT) as second:
            assert f"(process {process.pid})" in read_until(second, "use another directory with --data")
        assert second.returncode == 2
        assert first.replicas["n1"].config.read_text() == before
        os.kill(int(replica[1]), signal.SIGKILL)
        assert "n1 died (killed by SIGKILL)" in read_until(process, "start it again with")
        os.killpg(process.pid, signal.SIGINT)  # as the terminal sends Ctrl-C
        assert "the data is in" in read_until(process, "stopped;")
    assert process.returncode == 0


def test_the_command_stops_cleanly_before_its_replicas_are_ready(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path)
    log = cluster.replicas["n1"].log
    os.mkfifo(log)  # the command blocks in the start of the replica until the test opens this, too
    with command(tmp_path, cluster) as process, log.open("rb"):
        process.send_signal(signal.SIGTERM)
        assert "leads" not in read_until(process, "stopped;")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process of the end of its parent")
def test_the_replicas_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path)
    with command(tmp_path, cluster) as process:
        read_until(process, "Ctrl-C")
        process.kill()
    log = cluster.replicas["n1"].log
    with subprocess.Popen(["tail", "-n", "+1", "-F", log], stdout=subprocess.PIPE, text=True) as following:
        read_until(following, "has stopped")
        following.kill()
