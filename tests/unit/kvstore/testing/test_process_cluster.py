"""Local clusters: what is prepared and refused without a process, then real ones."""

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from kvstore.api.membership import MemberRole
from kvstore.api.status import Status
from kvstore.cli.cluster import FIRST_WORD_S, NEXT_WORD_S, start_command, until_ready
from kvstore.client import Client
from kvstore.server.config import Address
from kvstore.server.config_sources import load
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster
from kvstore.testing.replica_status import describe_exit, what_is_missing


def test_prepare_writes_settings_that_serve_takes(tmp_path: Path) -> None:
    cluster = ProcessCluster(3, tmp_path / "data", settings={"lease_ms": 700, "log_level": "debug"})
    cluster.prepare()
    for name, place in cluster.replicas.items():
        settings = load({}, place.config)
        assert (settings.node, settings.listen, settings.peer_bind) == (name, place.listen, place.peers)
        assert (settings.lease_ms, settings.log_level, settings.data) == (700, "debug", place.data)
        assert len(settings.members) == 3
        assert len(settings.shared_secret()) == 64


def test_a_link_may_lead_over_an_address_of_its_own(tmp_path: Path) -> None:
    cluster = ProcessCluster(3, tmp_path)
    cluster.prepare({("n1", "n2"): Address("127.0.0.1", 7)})
    members = {name: load({}, place.config).members for name, place in cluster.replicas.items()}
    assert members["n1"]["n2"].port == 7
    members["n1"]["n2"] = cluster.replicas["n2"].peers  # all else leads where it did
    assert all(each == {name: place.peers for name, place in cluster.replicas.items()} for each in members.values())


def test_the_secret_is_private_and_stays(tmp_path: Path) -> None:
    ProcessCluster(1, tmp_path).prepare()
    secret = tmp_path / "secret"
    first = secret.read_text()
    assert secret.stat().st_mode & 0o777 == 0o600
    ProcessCluster(1, tmp_path).prepare()
    assert secret.read_text() == first


def test_data_of_another_number_of_replicas_is_refused(tmp_path: Path) -> None:
    for name in ("n1", "n2", "n3"):
        (tmp_path / name).mkdir()
    ProcessCluster(3, tmp_path).prepare()
    with pytest.raises(ClusterError, match=r"began with 3 replicas.*run it with --nodes 3"):
        ProcessCluster(5, tmp_path).prepare()


def test_ports_in_use_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"in use already: 127.0.0.1:{port} \(n1's clients\)"):
            ProcessCluster(1, tmp_path / "data", port=port).prepare()
    assert not (tmp_path / "data").exists()


def test_ranges_of_ports_that_overlap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="overlap"):
        ProcessCluster(3, tmp_path, port=18001, peer_port=18003).prepare()


def test_ports_chosen_freely_are_all_different(tmp_path: Path) -> None:
    places = ProcessCluster(5, tmp_path).replicas.values()
    assert len({address.port for place in places for address in (place.listen, place.peers)}) == 10


@pytest.mark.parametrize(
    ("code", "text"), [(None, "running"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40"), (3, "exit status 3")]
)
def test_an_exit_is_described_for_people(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


def test_the_command_to_start_a_replica_is_short_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert start_command(ProcessCluster(1, Path("data")).replicas["n1"]).endswith(" serve --config data/n1.toml")


def test_a_directory_that_is_held_is_refused_until_it_is_let_go(tmp_path: Path) -> None:
    refused = pytest.raises(ClusterError, match=rf"process {os.getpid()}\): stop that one, or give this one another")
    with ProcessCluster(1, tmp_path).locked(), refused, ProcessCluster(1, tmp_path).locked():
        pass
    with ProcessCluster(1, tmp_path).locked():
        pass


def status(name: str, *, ready: bool) -> Status:
    return Status(name, "c", "follower", ready, "1.n1", "1.n1", None, None, 1, 1, 1, 1, [], "0", 1)


def test_what_is_missing_is_said_of_each_replica_that_is_late() -> None:
    text = what_is_missing({"n1": None, "n2": status("n2", ready=False), "n3": status("n3", ready=True)})
    assert text == "n1 is still starting: it replays its log, n2 catches up with the others"
    assert what_is_missing({"n1": status("n1", ready=True)}) == "no replica leads"


def test_a_long_start_is_waited_for_and_told_of_now_and_then(tmp_path: Path) -> None:
    waits = []

    class Slow(ProcessCluster):
        async def wait_ready(self, names: Iterable[str] | None = None, *, timeout_s: float = 30.0) -> str:
            waits.append(timeout_s)
            if len(waits) < 4:
                raise NotReadyError("not ready yet: n1 is still starting")
            return "n1"

    said = io.StringIO()
    assert asyncio.run(until_ready(Slow(1, tmp_path), Console(file=said, width=200))) == "n1"
    assert waits == [FIRST_WORD_S, NEXT_WORD_S, NEXT_WORD_S, NEXT_WORD_S]
    assert said.getvalue().count("n1 is still starting. Still waiting; Ctrl-C stops all.") == 3


@pytest.mark.cluster
def test_a_wait_that_ends_while_the_processes_live_says_what_is_missing(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ProcessCluster(1, tmp_path)
        cluster.prepare()
        cluster.start()
        try:
            cluster.pause("n1")
            with pytest.raises(NotReadyError, match="n1 is still starting: it replays its log"):
                await cluster.wait_ready(timeout_s=0)
            assert cluster.runs("n1")
        finally:
            await cluster.stop()

    asyncio.run(story())


@pytest.mark.cluster
def test_a_cluster_starts_survives_a_kill_and_has_its_data_in_the_next_run(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ProcessCluster(3, tmp_path)
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


@pytest.mark.cluster
def test_who_was_added_or_removed_is_known_to_the_next_run(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ProcessCluster(3, tmp_path)
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
        cluster = ProcessCluster(3, tmp_path)
        assert {name: place.joins for name, place in cluster.replicas.items()} == {
            "n1": False, "n3": False, "n4": True, "w1": True
        }  # fmt: skip
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
        assert ProcessCluster(3, tmp_path).replicas["n2"].joins

    asyncio.run(story())


@pytest.mark.cluster
def test_a_replica_that_cannot_start_ends_the_wait_with_its_last_words(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ProcessCluster(1, tmp_path, settings={"lease_ms": 20})
        cluster.prepare()
        cluster.start()
        with pytest.raises(ClusterError, match=r"n1 ended at start \(exit status 2\): kvstore: lease_ms"):
            await cluster.wait_ready()

    asyncio.run(story())


@contextmanager
def command(tmp_path: Path, cluster: ProcessCluster, stderr: int | None = None) -> "Iterator[subprocess.Popen[str]]":
    """`kvstore cluster` of one replica with the ports of `cluster`; a test that fails does not wait for its end."""
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
    """The output up to the line that holds `text`."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if text in line:
            return lines
    raise AssertionError(f"the output ended without {text!r}:\n{lines}")


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_tells_what_to_try_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with command(tmp_path, ProcessCluster(1, tmp_path)) as process:
        greeting = read_until(process, "Ctrl-C")
        assert re.search(r"n1  http://127.0.0.1:\d+  peers 127.0.0.1:\d+  process \d+  leads", greeting)
        assert greeting.count("curl ") == 2
        process.send_signal(number)
        assert "the data stays in" in read_until(process, "stopped;")
    assert process.returncode == 0


@pytest.mark.cluster
def test_the_command_stops_cleanly_before_its_replicas_are_ready(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path)
    log = cluster.replicas["n1"].log
    os.mkfifo(log)  # opened by the command when it starts the replica, which cannot be ready that moment
    with command(tmp_path, cluster) as process, log.open("rb"):
        process.send_signal(signal.SIGINT)
        assert "leads" not in read_until(process, "stopped;")
    assert process.returncode == 0


@pytest.mark.cluster
def test_a_second_command_on_the_same_data_is_refused_and_changes_no_settings(tmp_path: Path) -> None:
    first = ProcessCluster(1, tmp_path)
    with command(tmp_path, first) as process:
        read_until(process, "Ctrl-C")
        before = first.replicas["n1"].config.read_text()
        with command(tmp_path, ProcessCluster(1, tmp_path), stderr=subprocess.STDOUT) as second:
            assert f"(process {process.pid})" in read_until(second, "stop that one, or give this one another directory")
        assert second.returncode == 2
        assert first.replicas["n1"].config.read_text() == before
        process.send_signal(signal.SIGINT)
        read_until(process, "stopped;")
    assert process.returncode == 0


@pytest.mark.cluster
def test_the_command_tells_of_a_replica_that_dies(tmp_path: Path) -> None:
    with command(tmp_path, ProcessCluster(1, tmp_path)) as process:
        greeting = re.search(r"process (\d+)", read_until(process, "Ctrl-C"))
        assert greeting is not None
        os.kill(int(greeting[1]), signal.SIGKILL)
        assert "n1 died (killed by SIGKILL)" in read_until(process, "start it again with")
        process.send_signal(signal.SIGINT)
        read_until(process, "stopped;")
    assert process.returncode == 0


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child is not told of its parent's end")
def test_the_replicas_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    cluster = ProcessCluster(1, tmp_path)
    with command(tmp_path, cluster) as process:
        read_until(process, "Ctrl-C")
        process.kill()
    log = cluster.replicas["n1"].log
    with subprocess.Popen(["tail", "-n", "+1", "-F", log], stdout=subprocess.PIPE, text=True) as following:
        read_until(following, "has stopped")
        following.kill()


@pytest.mark.parametrize(("code", "body"), [(200, b"not a status"), (200, b'{"id": "\xff"}'), (404, b"")])
def test_whatever_else_answers_at_a_replicas_address_is_no_replica(tmp_path: Path, code: int, body: bytes) -> None:
    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    cluster = ProcessCluster(2, tmp_path / "data")
    servers = [
        ThreadingHTTPServer((place.listen.host, place.listen.port), Foreign) for place in cluster.replicas.values()
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()

    async def ask() -> dict[str, Status | None]:
        async with cluster.status_client() as client:
            return await cluster.statuses(client)

    try:
        assert asyncio.run(ask()) == {"n1": None, "n2": None}
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
