"""Starts the processes of the generator together, and puts together what they found."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence

import msgspec
from yarl import URL

from bench.errors import BenchError
from bench.load.found import Load, merged
from bench.load.order import Message, Mix, Order, Progress, Ready, Result

LEAD_NS = 100_000_000
"""From the word to start until the start: all processes have it by then."""
LINE_BYTES = 1 << 26
"""Longest line of a process: its result has the bins of the whole run."""


DEFAULT_PROCESSES = max(1, (os.cpu_count() or 1) // 4)
"""One for four cores: the others are for the replicas."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A load: `mix` on `connections` to the replicas at `urls`, in turn. `rate`: requests a second in an open loop;
    None: a closed one. `fill`: all keys are put before."""

    mix: Mix
    urls: list[str]
    connections: int
    rate: float | None = None
    warm_up_s: float = 1.0
    seconds: float = 5.0
    processes: int = 1
    fill: bool = False

    def __post_init__(self) -> None:
        """Raises BenchError when a process would have no connection."""
        if self.connections < self.processes:
            raise BenchError(f"{self.processes} processes need a connection each: take more --connections")

    def order(self, worker: int) -> Order:
        """The share of one process."""
        addresses = [address_of(url) for url in self.urls]
        first = sum(share(self.connections, self.processes, before) for before in range(worker)) % len(addresses)
        return Order(
            mix=self.mix,
            addresses=addresses[first:] + addresses[:first],
            connections=share(self.connections, self.processes, worker),
            worker=worker,
            workers=self.processes,
            rate=self.rate,
            warm_up_s=self.warm_up_s,
            seconds=self.seconds,
            fill=self.fill,
        )


def share(total: int, parts: int, number: int) -> int:
    """The part with this number, from 0, of a total that is divided as evenly as it can be."""
    return total // parts + (number < total % parts)


def address_of(url: str) -> tuple[str, int]:
    """Host and port. Raises BenchError."""
    parsed = URL(url)
    if parsed.scheme != "http" or parsed.host is None or parsed.port is None:
        raise BenchError(f"{url} is no endpoint: it looks like http://127.0.0.1:8001")
    return parsed.host, parsed.port


async def run(ask: Ask, progress: Callable[[int], None] = lambda _: None) -> Load:
    """Run it. `progress` is told how many requests were answered so far. Raises BenchError."""
    workers = [_Worker(ask.order(number)) for number in range(ask.processes)]
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.prepare())
        start_ns = time.monotonic_ns() + LEAD_NS

        def tell() -> None:
            progress(sum(worker.answered for worker in workers))

        results = await asyncio.gather(*(worker.run(start_ns, tell) for worker in workers))
    finally:
        for worker in workers:
            await worker.end()
    return merged(
        results,
        ask.mix,
        connections=ask.connections,
        rate=ask.rate,
        seconds=ask.seconds,
        warm_up_s=ask.warm_up_s,
    )


class _Worker:
    """One process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._process: asyncio.subprocess.Process | None = None
        self.answered = 0

    async def prepare(self) -> None:
        """Start it, until it is ready. Raises BenchError."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends its processes
        )
        self._write(msgspec.json.encode(self._order))
        while not isinstance(await self._read(), Ready):
            pass

    async def run(self, start_ns: int, tell: Callable[[], None]) -> Result:
        """Have it start, until it has its result. Raises BenchError."""
        self._write(b"%d" % start_ns)
        while True:
            message = await self._read()
            if isinstance(message, Result):
                return message
            if isinstance(message, Progress):
                self.answered = message.answered
                tell()

    async def end(self) -> None:
        """It is gone on return."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _write(self, line: bytes) -> None:
        stdin = None if self._process is None else self._process.stdin
        if stdin is None:
            raise RuntimeError("the process was not started")
        stdin.write(line + b"\n")

    async def _read(self) -> Message:
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("the process was not started")
        line = await process.stdout.readline()
        if not line:
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise BenchError(f"the load could not be made: {said[-500:]}")
        message: Message = msgspec.json.decode(line, type=Message)
        return message


def dealt(connections: int, urls: Sequence[str]) -> dict[str, int]:
    """How many connections go to each of these when they are dealt out in turn."""
    return {url: share(connections, len(urls), number) for number, url in enumerate(urls)}
