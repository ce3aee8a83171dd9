"""PySyncObj as a compared store: three members, each with a dictionary in memory."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import msgspec

from bench.compare.stores import MEMBERS, START_S, FsyncCounters
from bench.errors import BenchError
from bench.programs import end
from kvstore.testing.cluster_directory import HOST
from kvstore.testing.machine import free_ports

_LINE_BYTES = 1 << 28
"""Longest line that a member prints: all latencies of a load."""


class MemberOptions(msgspec.Struct):
    """The argument of a member: its address, the others' addresses, and whether its settings are tuned."""

    own: str
    others: list[str]
    tuned: bool


class SetLoad(msgspec.Struct):
    """A load that sets `keys` keys in turn, with `outstanding` set operations in flight."""

    warm_up_s: float
    seconds: float
    outstanding: int
    keys: int
    value_bytes: int


class SetLoadResult(msgspec.Struct):
    """The set operations in the measured time, with ascending latencies. A member that does not lead runs no load."""

    leads: bool
    sets: int = 0
    failed: int = 0
    latencies_ms: list[float] = []


def check_installed() -> None:
    """Raise BenchError when PySyncObj is not installed."""
    if importlib.util.find_spec("pysyncobj") is None:
        raise BenchError("PySyncObj is not installed: run `pip install --group bench` in the checkout")


class PySyncObjMembers:
    """Processes of `bench.compare.pysyncobj_member`. Nothing is durable."""

    def __init__(self, _: Path, *, tuned: bool) -> None:
        self._tuned = tuned
        self._processes: list[asyncio.subprocess.Process] = []
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See ComparedStore."""
        addresses = [f"{HOST}:{port}" for port in free_ports(HOST, MEMBERS)]
        for own in addresses:
            options = MemberOptions(own, [each for each in addresses if each != own], self._tuned)
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bench.compare.pysyncobj_member", msgspec.json.encode(options).decode()),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    start_new_session=True,  # Ctrl-C goes to the benchmark, which stops the members
                )
            )
        await self._lines(START_S)

    async def stop(self) -> None:
        """See ComparedStore."""
        await end(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """See ComparedStore."""
        return [process.pid for process in self._processes]

    async def fsyncs(self) -> FsyncCounters:
        """See ComparedStore."""
        return FsyncCounters(0, 0)

    async def load(self, load: SetLoad) -> SetLoadResult:
        """Run a load in the process of the leader. Raises BenchError."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(load) + b"\n")
        for line in await self._lines(load.warm_up_s + 2 * load.seconds + START_S):
            result = msgspec.json.decode(line, type=SetLoadResult)
            if result.leads:
                return result
        raise BenchError("PySyncObj lost its leader: run the comparison again")

    async def _lines(self, timeout_s: float) -> list[bytes]:
        """Return the next line of each member. Raises BenchError."""
        try:
            async with asyncio.timeout(timeout_s):
                lines = [await process.stdout.readline() for process in self._processes if process.stdout is not None]
        except TimeoutError as error:
            raise BenchError(f"PySyncObj did not answer within {timeout_s:.0f} s: run the comparison again") from error
        if not all(lines):
            raise BenchError("a member of PySyncObj ended; its output is above")
        return lines
