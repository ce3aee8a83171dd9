"""Clients of a cluster whose members come and go. Each request is recorded and checked, as in `tests.torture.faults`.

They do as `kvstore.client.Client` does: a replica that refuses is followed by another one. A write whose outcome is not
known is not repeated.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random

import aiohttp
import msgspec

from tests.torture.faults.clients import THINK_S, Keys, call, session, whole
from tests.torture.faults.history import WRITES, Call, Kind

PATIENCE_S = 5.0
"""Longer no replica is asked for what none of them takes."""
AVOID_S = 0.5
"""A replica that did not do what it was asked is left alone for so long."""
READERS = 8


class Failure(msgspec.Struct, frozen=True):
    """A write that was not acknowledged, between two moments of the clock of the calls: `why` is its last outcome."""

    key: str
    called_ns: int
    returned_ns: int
    why: str


class Traffic:
    """Clients that work until `stop`. `urls` are those of the present members, by name, at any moment."""

    def __init__(self, urls: Callable[[], Mapping[str, str]], seed: int) -> None:
        self._urls = urls
        self._seed = seed
        self._keys = Keys()
        self._stopping = False
        self._avoided: dict[str, float] = {}
        self.calls: list[Call] = []
        self.failures: list[Failure] = []
        self.acknowledged = 0

    def stop(self) -> None:
        """Let each client end after the request that is under way."""
        self._stopping = True

    async def client(self, number: int) -> None:
        """One client. It asks a replica of its own first."""
        rng = Random(f"{self._seed}/{number}")
        async with session() as http:
            while not self._stopping:
                await self._ask(http, *self._keys.draw_call(rng), number)
                await asyncio.sleep(rng.uniform(0, THINK_S))

    async def read_back(self, timeout_s: float) -> None:
        """Read each key through every replica. Raises TimeoutError when one of them does not answer."""
        keys = list(dict.fromkeys(call.key for call in self.calls))
        left = iter([(key, name, url) for key in keys for name, url in self._urls().items()])
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(self._read(left))

    async def _read(self, left: Iterator[tuple[str, str, str]]) -> None:
        async with session() as http:
            for key, name, url in left:
                done = await call(http, name, url, whole(key), key, value="")
                while done.outcome != "answered":
                    await asyncio.sleep(THINK_S)
                    done = await call(http, name, url, whole(key), key, value="")
                self.calls.append(done)

    async def _ask(self, http: aiohttp.ClientSession, kind: Kind, key: str, number: int) -> None:
        began_ns = time.monotonic_ns()
        while True:
            names = sorted(self._urls())
            own, now = names[number % len(names)], time.monotonic()
            name = min(names, key=lambda each: (self._avoided.get(each, 0.0) > now, each != own))
            value, seen = self._keys.fresh_value(), self._keys.seen(key)
            done = await call(http, name, self._urls()[name], kind, key, value=value, seen=seen)
            self._keys.note(done)
            self.calls.append(done)
            if done.outcome == "answered":
                self._avoided.pop(name, None)
                self.acknowledged += kind in WRITES
                return
            now = time.monotonic()
            self._avoided[name] = now + AVOID_S
            over = now - began_ns / 1e9 > PATIENCE_S
            if kind in WRITES and (over or done.outcome == "unknown"):
                self.failures.append(Failure(key, began_ns, done.returned_ns, f"{done.outcome} at {name}"))
            if over or kind not in WRITES or done.outcome == "unknown":
                return
            await asyncio.sleep(THINK_S)


def unexcused(failures: Iterable[Failure], faults: Iterable[tuple[int, int]]) -> list[Failure]:
    """Failures that no fault overlaps; those are between two moments."""
    spans = list(faults)
    return [
        one
        for one in failures
        if not any(began <= one.returned_ns and one.called_ns <= ended for began, ended in spans)
    ]
