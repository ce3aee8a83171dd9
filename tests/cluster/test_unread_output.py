"""Programs whose output goes to a pipe that nobody reads: replicas serve and end, and `kvstore cluster` stops them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvstore.client import Client
from kvstore.client.caller import Request
from kvstore.testing.process_cluster import ProcessCluster, ReplicaProcess
from tests.cluster.harness import STORY_S, others, running, until

pytestmark = pytest.mark.cluster

NOISY = """
import logging, sys, threading, time

def log() -> None:
    while True:
        logging.getLogger("noise").info("%s", "x" * 10_000)
        time.sleep(0.001)

threading.Thread(target=log, daemon=True).start()
from kvstore.cli import main
main()
"""


def fill(writer: int) -> None:
    """Write to the pipe until it takes no further byte."""
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"#" * 4096)
    os.set_blocking(writer, True)


class UnreadCluster(ProcessCluster):
    """A cluster whose replicas write to full pipes. `readers` holds the other ends of the pipes by replica."""

    program = ("-m", "kvstore")

    def spawn(self, name: str, environment: Mapping[str, str]) -> ReplicaProcess:
        """Start the process of one replica."""
        self.readers: dict[str, int] = getattr(self, "readers", {})
        self.readers[name], writer = os.pipe()
        fill(writer)
        try:
            return subprocess.Popen(
                [sys.executable, *self.program, "serve", "--config", str(self.replicas[name].config)],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=environment,
            )
        finally:
            os.close(writer)

    def read(self, name: str) -> str:
        """Read the output of a replica until it ends, without the bytes that filled the pipe."""
        with os.fdopen(self.readers.pop(name), "rb") as reader:
            return reader.read().lstrip(b"#").decode()


async def dropped_lines(client: Client) -> float:
    text = (await client.ask(Request("GET", "/metrics"))).body.decode()
    (family,) = [each for each in text_string_to_metric_families(text) if each.name == "kvstore_log_dropped_lines"]
    return family.samples[0].value


def test_replicas_start_serve_and_end_while_nobody_reads_what_they_write(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = UnreadCluster(2, tmp_path)
        cluster.prepare()
        cluster.start()
        try:
            leader = await cluster.wait_ready()
            (follower,) = others(cluster, leader)
            async with Client(cluster.endpoints) as client:
                await client.put("k", b"1")
                assert (await client.ask(Request("GET", "/livez"))).status == 200
            reading = asyncio.create_task(asyncio.to_thread(cluster.read, leader))
            assert await cluster.stop() == []
            assert (cluster.exit_of(leader), cluster.exit_of(follower)) == (0, 0)
            lines = (await reading).splitlines()
            assert "2 voters" in lines[0], "the warning about the settings is the first line"
            assert lines[-1].endswith(f"{leader} has stopped")
        finally:
            cluster.kill(*filter(cluster.runs, cluster.replicas))

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_lines_that_nobody_reads_in_time_are_counted(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = UnreadCluster(1, tmp_path)
        cluster.program = ("-c", NOISY)
        cluster.prepare()
        cluster.start()
        try:
            await cluster.wait_ready()
            async with Client(cluster.endpoints) as client:
                for _ in range(2):
                    before = await dropped_lines(client)

                    async def more(before: float = before) -> bool:
                        return await dropped_lines(client) > before

                    await until(more)
                    await client.put("k", b"1")
            reading = asyncio.create_task(asyncio.to_thread(cluster.read, "n1"))
            assert await cluster.stop() == []
            assert " lines are missing here" in await reading
        finally:
            cluster.kill(*filter(cluster.runs, cluster.replicas))

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_the_command_stops_its_replicas_though_nobody_reads_its_output(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path)
    first = cluster.replicas["n1"]
    ports = ["--port", str(first.listen.port), "--peer-port", str(first.peers.port)]
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "kvstore", "cluster", "--nodes", "1", "--data", str(tmp_path), *ports],
        stdout=writer,
        stderr=writer,
    ) as process:
        try:
            fill(writer)
            asyncio.run(asyncio.wait_for(until_serving(cluster), STORY_S))
            process.send_signal(signal.SIGTERM)
            assert process.wait(STORY_S) == 0
            assert first.log.read_text().rstrip().endswith("n1 has stopped")
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)


def test_a_lock_is_released_though_nobody_reads_the_messages_of_its_command(tmp_path: Path) -> None:
    """`kvstore lock` says that its command has left processes running, while it holds the lock."""

    async def story() -> None:
        async with running(tmp_path, 1) as cluster, Client(cluster.endpoints) as client:
            reader, writer = os.pipe()
            fill(writer)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kvstore", "lock", "l", "--", "sh", "-c", "sleep 1000 &"),
                stderr=writer,
                env=os.environ | {"KVSTORE_ENDPOINTS": cluster.endpoints[0]},
            )
            try:
                assert await process.wait() == 0
                async with client.lock("l", wait_s=0):
                    pass
            finally:
                os.close(reader)
                os.close(writer)

    asyncio.run(asyncio.wait_for(story(), STORY_S))


async def until_serving(cluster: ProcessCluster) -> None:
    """Wait until the replica, which another process has started, is ready."""
    async with cluster.status_client() as client:

        async def ready() -> bool:
            status = (await cluster.statuses(client))["n1"]
            return status is not None and status.ready

        await until(ready)
