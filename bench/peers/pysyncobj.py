"""PySyncObj as a store that is compared: three members, each with its dictionary in memory."""

import asyncio
import importlib.util
import sys

import msgspec

from bench.errors import BenchError
from bench.stores import MEMBERS, Counters, end, free_ports
from kvstore.testing.cluster_directory import HOST

_START_S = 30.0
_LINE_BYTES = 1 << 28
"""Longest line of a member: all latencies of a load."""


class Order(msgspec.Struct):
    """Set `keys` keys in turn to values of `value_bytes`, so many `outstanding` at once."""

    warm_up_s: float
    seconds: float
    outstanding: int
    keys: int
    value_bytes: int


class Done(msgspec.Struct):
    """What became of an order: operations in the measured time, their latencies in milliseconds, in order. A member
    that does not lead has none."""

    leads: bool
    operations: int = 0
    failed: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = []


def check_installed() -> None:
    """Raises BenchError when PySyncObj is not installed."""
    if importlib.util.find_spec("pysyncobj") is None:
        raise BenchError("PySyncObj is one of those that this compares with: pip install pysyncobj")


class PySyncObj:
    """See `bench.peers.pysyncobj_node`. Nothing in it is durable."""

    def __init__(self, *, tuned: bool) -> None:
        self._tuned = tuned
        self._processes: list[asyncio.subprocess.Process] = []
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See Store. Raises BenchError."""
        addresses = [f"{HOST}:{port}" for port in free_ports(MEMBERS)]
        for own in addresses:
            others = [address for address in addresses if address != own]
            start = msgspec.json.encode({"own": own, "others": others, "tuned": self._tuned}).decode()
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bench.peers.pysyncobj_node", start),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    start_new_session=True,  # Ctrl-C is for the benchmark, which stops the members
                )
            )
        try:
            async with asyncio.timeout(_START_S):
                await self._said()
        except TimeoutError as error:
            raise BenchError(f"PySyncObj has no leader after {_START_S:.0f} s: run it again") from error

    async def stop(self) -> None:
        """See Store."""
        await end(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """See Store."""
        return [process.pid for process in self._processes]

    async def counters(self) -> Counters:
        """See Store. It never makes anything durable."""
        return Counters(0, 0)

    async def load(self, order: Order) -> Done:
        """Sets in the process of the leader. Raises BenchError."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(order) + b"\n")
        async with asyncio.timeout(order.warm_up_s + 2 * order.seconds + _START_S):
            answers = [msgspec.json.decode(line, type=Done) for line in await self._said()]
        for done in answers:
            if done.leads:
                return done
        raise BenchError("PySyncObj has lost its leader: run it again")

    async def _said(self) -> list[bytes]:
        """The next line of each member. Raises BenchError when one has ended."""
        lines = [await process.stdout.readline() for process in self._processes if process.stdout is not None]
        if not all(lines):
            raise BenchError("a member of PySyncObj ended early: see above for what it said")
        return lines
