"""`kvstore.testing` as its users see it: faults, errors, fixtures, and that no process or file is left."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from kvstore.api.queries import Consistency
from kvstore.client import Unavailable
from kvstore.testing import AsyncLocalCluster, ClusterError, LocalCluster
from tests.cluster.harness import until

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def test_replicas_are_killed_paused_and_isolated_and_come_back() -> None:
    with LocalCluster() as cluster:
        client = cluster.client(timeout_ms=30_000)
        client.put("a", b"0")
        cluster.kill(killed := cluster.wait_ready())
        client.put("a", b"1")  # the others go on, each time
        cluster.restart(killed)
        cluster.pause(paused := cluster.wait_ready())
        client.put("a", b"2")
        cluster.resume(paused)
        cluster.partition(cluster.wait_ready())
        client.put("a", b"3")
        cluster.heal()
        assert cluster.wait_ready() in cluster.names
        for name in cluster.names:
            record = cluster.client(name).get("a")
            assert record is not None
            assert (record.value, record.version) == (b"3", 4)


def test_an_isolated_minority_serves_stale_reads_only() -> None:
    with LocalCluster() as cluster:
        cluster.client().put("a", b"before")
        cluster.wait_ready()
        few, many = cluster.client("n1"), cluster.client("n2", "n3", timeout_ms=30_000)
        cluster.partition(["n1"], ["n2", "n3"])
        many.put("a", b"after")
        with pytest.raises(Unavailable):
            cluster.client("n1", timeout_ms=500).get("a")
        stale = few.get("a", Consistency.STALE)
        assert stale is not None
        assert stale.value == b"before"
        cluster.heal()
        cluster.wait_ready()
        assert [each.get("a") for each in (few, many)] == [many.get("a")] * 2


def test_the_same_with_asyncio() -> None:
    async def story() -> None:
        async with AsyncLocalCluster(settings={"log_level": "debug"}) as cluster:
            client = await cluster.client(timeout_ms=30_000)
            await client.put("a", b"1")
            leader = await cluster.leader()
            await cluster.kill(leader)
            assert (await client.put("a", b"2")).version == 2
            await cluster.reset()
            fresh = await cluster.client()
            assert await fresh.get("a") is None
            assert await fresh.leases() == []

    asyncio.run(story())


def test_an_error_carries_the_output_of_the_replicas() -> None:
    def fail() -> None:
        with LocalCluster() as cluster:
            cluster.kill("n2")
            cluster.kill("n4")

    with pytest.raises(ValueError, match="no replica 'n4': the replicas of this cluster are n1, n2, n3") as caught:
        fail()
    assert "---- n1, running" in caught.value.__notes__[0]
    assert "---- n2, killed by SIGKILL" in caught.value.__notes__[0]
    assert "serves clients on" in caught.value.__notes__[0]


def test_invalid_settings_are_reported_with_the_reason() -> None:
    with pytest.raises(ClusterError, match="lease_ms"), LocalCluster(1, {"lease_ms": 1}):
        raise AssertionError("it has come up")


def lives(process_id: int) -> bool:
    """Return whether the process runs: a zombie that its parent has not reaped does not."""
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text()
    return False


def wait_until_nothing_is_left(process_ids: list[str], directory: str) -> None:
    def is_left() -> bool:
        return any(map(lives, map(int, process_ids))) or Path(directory).exists()

    async def gone() -> bool:
        return not is_left()

    asyncio.run(asyncio.wait_for(until(gone), 300))


KILLED = """
from kvstore.testing import LocalCluster
with LocalCluster() as cluster:
    cluster.pause("n2")
    processes = cluster.cluster.processes
    print(*(processes.process_id(name) for name in cluster.names), processes.directory, flush=True)
    input()
"""


def test_nothing_is_left_of_a_program_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as program:
        assert program.stdout is not None
        *process_ids, directory = program.stdout.readline().split()
        assert all(lives(int(process_id)) for process_id in process_ids)
        program.kill()
    wait_until_nothing_is_left(process_ids, directory)


LEFT_OPEN = """
import os
from kvstore.testing import LocalCluster
cluster = LocalCluster(1).__enter__()
client = cluster.client()
watching = client.watch(from_revision=1)
client.put("a", b"")
next(watching)
child = os.fork()
if not child:
    try:
        client.get("a")
    except RuntimeError as error:
        print(error, flush=True)
    client.__exit__(None, None, None)
    os._exit(0)
os.waitpid(child, 0)
assert client.get("a") is not None
cluster.pause("n1")
processes = cluster.cluster.processes
print(processes.process_id("n1"), processes.directory, flush=True)
"""


def test_nothing_is_left_of_a_script_that_closes_nothing(tmp_path: Path) -> None:
    """The script has no guard against running in its child processes, either."""
    script = tmp_path / "script.py"
    script.write_text(LEFT_OPEN)
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
    in_fork, left = done.stdout.splitlines()
    assert re.fullmatch(r"SyncClient was opened in process \d+ and cannot be used after a fork: .*", in_fork)
    *process_ids, directory = left.split()
    wait_until_nothing_is_left(process_ids, directory)


FORKED = """
import os, sys
from kvstore.testing import LocalCluster
with LocalCluster(1) as cluster:
    client = cluster.client()
    with client.lock("deploy") as held:
        child = os.fork()
        if not child:
            try:
                LocalCluster(1)
            except RuntimeError as error:
                print(error, flush=True)
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print(client.put("a", b"", fence=held.fence).version, os.path.exists(cluster.cluster.processes.directory))
"""


def test_a_fork_of_the_program_ends_nothing_of_its_clusters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT, cwd=ROOT
    )
    refused, status, left = done.stdout.splitlines()
    assert re.fullmatch(r"clusters were started in process \d+, of which this process is a fork, and .*", refused)
    assert (status, left) == ("3", "1 True")


INTERRUPTED = """
import signal
from kvstore.testing import LocalCluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell starts a program, however the tests are run
with LocalCluster() as cluster:
    client = cluster.client()
    with client.lock("deploy"):
        try:
            print(flush=True)
            with cluster.client().lock("deploy"):
                print("held twice", flush=True)
        except KeyboardInterrupt:
            print(client.put("a", b"").version, flush=True)
    print(client.holder("deploy"), flush=True)
"""


def test_ctrl_c_ends_the_call_that_waits_and_no_replica() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout.read() == "1\nNone\n"
        assert program.wait(300) == 0


TESTS = """
import sys

def test_a_test_without_a_cluster_does_not_load_the_client():
    assert "kvstore.testing.pytest_plugin" in sys.modules
    assert "kvstore.client" not in sys.modules

def test_one(kvstore_cluster):
    client = kvstore_cluster.client()
    lease = client.lease()
    client.put("a", b"1", lease=lease)
    kvstore_cluster.kill("n1")
    kvstore_cluster.partition("n2")

def test_two(kvstore_cluster):
    client = kvstore_cluster.client()
    assert client.get("a") is None
    assert client.leases() == []
    assert client.put("a", b"2").version == 1

def test_three(kvstore_clusters):
    client = kvstore_clusters(1).client(exactly_once=False)
    assert client.put("a", b"3").revision == 1

def test_four(kvstore_cluster):
    assert kvstore_cluster is None
"""


def test_the_fixtures_of_pytest(tmp_path: Path) -> None:
    (plugin,) = entry_points(group="pytest11", name="kvstore")
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", plugin.value, "-p", "no:cacheprovider", "-Werror", str(tmp_path)]
    environment = ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the other plugins take seconds to load
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "kvstore replicas" in done.stdout
    assert "serves clients on" in done.stdout
