"""Clients that write without a pause, and the reader that afterwards asks for all that they were promised."""

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence

from kvstore.client import Client, Unavailable, UnknownOutcome

READERS = 32
"""Reads in flight when the acknowledged writes are read back."""


class Pulse:
    """When writes succeed, over all clients: measures how long none does. Times are seconds of a monotonic clock, and
    `times` are all of them, counted from `now`."""

    def __init__(self, now: float) -> None:
        self._began = self._last = now
        self.times = array("d")
        self._beat = asyncio.Event()
        self.longest_s = 0.0
        """Longest time without a success since `restart`, ended by one. It counts from the last success before."""

    def beat(self, now: float) -> None:
        """A write succeeded."""
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        self.times.append(now - self._began)
        self._beat.set()

    def elapsed_s(self, now: float) -> float:
        """Seconds since the first instant of `times`."""
        return now - self._began

    def restart(self) -> None:
        """Look for the longest silence from here on; the one under way counts whole."""
        self.longest_s = 0.0

    async def next(self) -> None:
        """Wait for the next success."""
        self._beat.clear()
        await self._beat.wait()


class Writer:
    """One client in a closed loop: a new key with each write, so that none hides that another one was lost."""

    def __init__(self, name: str, endpoints: Sequence[str], pulse: Pulse) -> None:
        self._name = name
        self._endpoints = endpoints
        self._pulse = pulse
        self._stopping = False
        self.acknowledged: list[str] = []
        """The keys of the writes that were answered; the value of each is its key."""
        self.unknown = 0
        self.refused = 0

    async def run(self) -> None:
        """Write until `stop`."""
        number = 0
        async with Client(self._endpoints, exactly_once=False) as client:  # what is unknown is counted
            while not self._stopping:
                number += 1
                await self._write(client, f"{self._name}/{number}")

    def stop(self) -> None:
        """Let `run` end after the write that is under way."""
        self._stopping = True

    async def _write(self, client: Client, key: str) -> None:
        try:
            await client.put(key, key.encode())
        except UnknownOutcome:
            self.unknown += 1
        except Unavailable:
            self.refused += 1
        else:
            self._pulse.beat(time.monotonic())
            self.acknowledged.append(key)


async def missing(endpoints: Sequence[str], keys: Sequence[str], on_read: Callable[[], None]) -> list[str]:
    """Those of `keys` that cannot be read back with their value. `on_read` is called once for each key."""
    left = iter(keys)
    lost: list[str] = []

    async def read(client: Client) -> None:
        for key in left:
            record = await client.get(key)
            if record is None or record.value != key.encode():
                lost.append(key)
            on_read()

    async with Client(endpoints) as client, asyncio.TaskGroup() as readers:
        for _ in range(READERS):
            readers.create_task(read(client))
    return lost
