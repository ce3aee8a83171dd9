"""Clients in closed loops that record every request.

A client has a preferred replica. After a request to it failed, the client uses another one for a while, so a replica
that hangs delays only the clients that prefer it. A write of unknown outcome is never repeated.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random

import aiohttp
import msgspec

from tests.torture.calls import KeyPool, call, session, whole
from tests.torture.history import WRITES, CallKind, RecordedCall

MAX_THINK_S = 0.03
"""Longest pause between two requests."""
PATIENCE_S = 5.0
"""Time for which a refused write is retried at other replicas."""
AVOID_S = 0.3, 1.5
"""Range of the time for which a client avoids a replica after a failed request."""
READERS = 8


class FailedWrite(msgspec.Struct, frozen=True):
    """A write that was not acknowledged, with its last outcome."""

    key: str
    called_ns: int
    returned_ns: int
    why: str


class ReplicaChoice:
    """The choice of the replica to ask next: the preferred one, or another one while the client avoids it."""

    def __init__(self, urls: Callable[[], Mapping[str, str]], number: int, rng: Random) -> None:
        self._urls = urls
        self._number = number
        self._rng = rng
        self._avoided: dict[str, float] = {}

    async def next(self) -> tuple[str, str]:
        """Return name and URL of a replica; wait while the client avoids all of them."""
        while True:
            urls = self._urls()
            names = sorted(urls)
            now = time.monotonic()
            available = [name for name in names if self._avoided.get(name, 0.0) <= now]
            if available:
                preferred = names[self._number % len(names)]
                name = preferred if preferred in available else self._rng.choice(available)
                return name, urls[name]
            await asyncio.sleep(min(self._avoided[name] for name in names) - now)

    def avoid(self, name: str) -> None:
        """Avoid a replica for a while."""
        self._avoided[name] = time.monotonic() + self._rng.uniform(*AVOID_S)


class RecordingClients:
    """Clients that work until `stop`. `urls` returns the URLs of the present members by name.

    With `retries` a refused write is sent to other replicas, as `kvstore.client.Client` does. With `readers` every
    second client of a replica only reads: while a leader is partitioned, its writers wait, but reads must be checked.
    """

    def __init__(
        self, urls: Callable[[], Mapping[str, str]], seed: int, *, retries: bool = False, readers: bool = False
    ) -> None:
        self._urls = urls
        self._seed = seed
        self._retries = retries
        self._readers = readers
        self._pool = KeyPool()
        self._stopping = False
        self.calls: list[RecordedCall] = []
        self.failures: list[FailedWrite] = []
        self.answered = 0
        self.acknowledged = 0
        self.before_read_back: int | None = None
        """Number of calls before `read_back`."""

    def stop(self) -> None:
        """Make each client end after its request in flight."""
        self._stopping = True

    async def run(self, number: int) -> None:
        """Run the client with this number."""
        rng = Random(f"{self._seed}/{number}")
        only_reads = self._readers and number // len(self._urls()) % 2 == 1
        replicas = ReplicaChoice(self._urls, number, rng)
        async with session() as http:
            while not self._stopping:
                await self._request(http, replicas, *self._pool.draw_call(rng, reads=only_reads))
                await asyncio.sleep(rng.uniform(0, MAX_THINK_S))

    async def _request(self, http: aiohttp.ClientSession, replicas: ReplicaChoice, kind: CallKind, key: str) -> None:
        began_ns = time.monotonic_ns()
        while True:
            name, url = await replicas.next()
            value, seen = self._pool.unique_value(), self._pool.seen(key)
            done = await call(http, name, url, kind, key, value=value, seen=seen)
            self._pool.note(done)
            self.calls.append(done)
            if done.outcome == "answered":
                self.answered += 1
                self.acknowledged += kind in WRITES
                return
            replicas.avoid(name)
            if kind not in WRITES:
                return
            late = time.monotonic_ns() - began_ns > 1e9 * PATIENCE_S
            if not self._retries or late or done.outcome == "unknown":
                self.failures.append(FailedWrite(key, began_ns, done.returned_ns, f"{done.outcome} at {name}"))
                return
            await asyncio.sleep(MAX_THINK_S)

    async def read_back(self, timeout_s: float) -> None:
        """Read each key through every replica. Raises TimeoutError when reads are not answered within `timeout_s`."""
        self.before_read_back = len(self.calls)
        keys = dict.fromkeys(each.key for each in self.calls)
        remaining = iter([(key, name, url) for key in keys for name, url in self._urls().items()])
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read(remaining))

    async def _read(self, remaining: Iterator[tuple[str, str, str]]) -> None:
        async with session() as http:
            for key, name, url in remaining:
                done = await call(http, name, url, whole(key), key, value="")
                while done.outcome != "answered":
                    await asyncio.sleep(MAX_THINK_S)
                    done = await call(http, name, url, whole(key), key, value="")
                self.calls.append(done)


def unexcused(failures: Iterable[FailedWrite], faults: Iterable[tuple[int, int]]) -> list[FailedWrite]:
    """Return the failures that overlap none of the faults, which are pairs of begin and end."""
    spans = list(faults)
    return [
        one
        for one in failures
        if not any(began <= one.returned_ns and one.called_ns <= ended for began, ended in spans)
    ]
