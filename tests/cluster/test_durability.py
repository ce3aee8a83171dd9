"""Rules 1 and 3 on whole replicas: what the kernel saw of their votes and syncs."""

import ast
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from kvstore.api.framing import FrameReader
from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.process_cluster import ProcessCluster
from paxos import wire
from paxos.messages import Accept, Accepted, Prepare, Promise
from tests.cluster.harness import STORY_S, CallHistory, Ending, HttpClient, others

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

PUTS = 50
CALLS = "fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg"
LINE = re.compile(r"(?P<thread>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?:\(\d+<(?P<file>.*?)>[,) ]| resumed>)(?P<rest>.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class TracedTransfer(msgspec.Struct, frozen=True):
    """Bytes that went over a connection, at a line of the trace."""

    line: int
    connection: str
    received: bool
    data: bytes


class SyscallTrace(msgspec.Struct):
    """Line numbers are the time. A sync that failed counts as none."""

    syncs: list[tuple[int, int]] = []
    """Begin and end of each sync of the write-ahead log."""
    transfers: list[TracedTransfer] = []

    def synced_between(self, begin: int, end: int) -> bool:
        """Whether a whole sync lies between."""
        return any(begin < first and last < end for first, last in self.syncs)


def parse(path: Path) -> SyscallTrace:
    """Parse the output of strace. A call that another thread interrupted takes two lines."""
    trace = SyscallTrace()
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(path.read_text().splitlines()):
        match = LINE.fullmatch(line)
        if match is None:
            continue
        thread, call, rest = match["thread"], match["call"], match["rest"]
        begin, file = (number, match["file"]) if match["file"] else begun.pop(thread, (number, ""))
        unfinished = rest.endswith("<unfinished ...>")
        if unfinished:
            begun[thread] = begin, file
        if call == "fdatasync":
            if file.endswith("-wal") and not unfinished and rest.endswith("= 0"):
                trace.syncs.append((begin, number))
        elif file.startswith("TCP") and (data := b"".join(map(_bytes, QUOTED.findall(rest)))):
            trace.transfers.append(TracedTransfer(number, file, call.startswith(("read", "recv")), data))
    return trace


def _bytes(text: str) -> bytes:
    data: bytes = ast.literal_eval(f'b"{text}"')  # C's escapes are Python's
    return data


def votes(trace: SyscallTrace, cluster: ProcessCluster) -> dict[object, tuple[int, int]]:
    """For each vote that left, when its request arrived first and when it was sent first."""
    ports = "|".join(str(place.peers.port) for place in cluster.replicas.values())
    readers: dict[tuple[str, bool], FrameReader] = {}
    asked: dict[object, int] = {}
    answered: dict[object, tuple[int, int]] = {}
    for transfer in trace.transfers:
        if not re.search(rf":({ports})\b", transfer.connection):
            continue
        way = transfer.connection, transfer.received
        for payload in readers.setdefault(way, FrameReader(wire.MAX_MESSAGE_BYTES)).feed(transfer.data):
            with suppress(wire.WireError):  # the handshake
                match transfer.received, wire.decode(payload):
                    case True, Accept(ballot=ballot, slot=slot):
                        asked.setdefault((ballot, slot), transfer.line)
                    case False, Accepted(ballot=ballot, slot=slot):
                        answered.setdefault((ballot, slot), (asked[ballot, slot], transfer.line))
                    case True, Prepare(ballot=ballot):
                        asked.setdefault(ballot, transfer.line)
                    case False, Promise(ballot=ballot):
                        answered.setdefault(ballot, (asked[ballot], transfer.line))
    return answered


def answered_puts(trace: SyscallTrace) -> Iterator[tuple[int, int]]:
    """When each PUT of a client arrived, and when its answer left."""
    arrived: dict[str, int] = {}
    for transfer in trace.transfers:
        if transfer.received and transfer.data.startswith(b"PUT /kv/"):
            arrived[transfer.connection] = transfer.line
        elif not transfer.received and transfer.data.startswith(b"HTTP/1.1 20") and transfer.connection in arrived:
            yield arrived.pop(transfer.connection), transfer.line


@contextmanager
def traced(place: LocalReplica) -> Iterator[None]:
    """A replica under strace, which writes to `<name>.trace` and ends together with it."""
    strace = [
        "strace",
        "-f",
        "-yy",
        "-s",
        "4096",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(place.directory / place.name) + ".trace",
    ]
    replica = [sys.executable, "-m", "kvstore", "serve", "--config", str(place.config)]
    with place.log.open("ab") as log:
        process = subprocess.Popen([*strace, *replica], stdout=log, stderr=log, start_new_session=True)
    try:
        yield
        os.killpg(process.pid, signal.SIGTERM)  # strace blocks it
        assert process.wait(STORY_S) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def founded(directory: Path) -> None:
    """Found a cluster, which takes all three members, and stop it."""
    cluster = ProcessCluster(3, directory)
    cluster.prepare()
    cluster.start()
    await cluster.wait_ready()
    await cluster.stop()


def test_no_vote_and_no_answer_leaves_before_the_disk_has_it(tmp_path: Path) -> None:
    """Two of three run, so that both votes are needed for every write, the leader's own too."""
    asyncio.run(founded(tmp_path / "cluster"))
    cluster = ProcessCluster(3, tmp_path / "cluster")
    cluster.prepare()
    names = list(cluster.replicas)[:2]

    async def story() -> str:
        async with asyncio.timeout(STORY_S):
            leader = await cluster.wait_ready(names)
            async with HttpClient(cluster, CallHistory()) as client:
                for number in range(PUTS):
                    call = await client.put(leader, b"k%d" % number)
                    assert call.ending is Ending.DONE, call.why
        return leader

    with traced(cluster.replicas[names[0]]), traced(cluster.replicas[names[1]]):
        leader = asyncio.run(story())
    traces = {name: parse(tmp_path / "cluster" / f"{name}.trace") for name in names}
    (follower,) = others(cluster, leader, "n3")

    given = votes(traces[follower], cluster)
    assert len(given) > PUTS
    for vote, (asked, sent) in given.items():
        assert traces[follower].synced_between(asked, sent), f"{follower} voted before it was durable: {vote}"
    puts = list(answered_puts(traces[leader]))
    assert len(puts) == PUTS
    for put, (arrived, answered) in enumerate(puts):
        assert traces[leader].synced_between(arrived, answered), f"{leader} answered PUT {put} without its own vote"
    for name, trace in traces.items():
        assert len(trace.syncs) >= PUTS, name
