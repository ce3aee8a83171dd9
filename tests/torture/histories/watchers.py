"""Watchers of every kind, which record what they receive.

A watcher delivers the changes of a revision when the id of the revision has arrived, and continues at another replica
after the last id, as every client does. What it had received of an incomplete revision must come again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp
import msgspec

from kvstore.client import ConnectionLostError
from tests.torture.histories.changes import ObservedChange, WatchSegment

READ_S = 4.0
"""Time without data after which a watcher goes to another replica."""
PAUSE_S = 0.1
SLOW_BYTES = 2048
"""Buffer of a slow watcher, and about the number of bytes that it reads at a time."""
SLOW_S = 0.05
TEAR_FROM, TEAR_UPTO = 20, 700
"""Range of the number of changes of one revision after which a tearing watcher leaves."""

Urls = Callable[[], Mapping[str, str]]


class RecordingWatcher:
    """A watcher of a prefix, or of a `single` key.

    A `slow` watcher reads little at a time, with pauses; a `tearing` one leaves in the middle of long revisions; a
    `late` one begins in the past, at `first`, and ends early. `on_change` gets each delivered change. `on_lost` gets
    the replica, the next revision and the oldest available one when the replica no longer has the next change.
    """

    def __init__(
        self,
        urls: Urls,
        rng: Random,
        prefix: str,
        *,
        single: bool = False,
        slow: bool = False,
        tearing: bool = False,
        late: bool = False,
        first: int = 1,
        on_change: Callable[[ObservedChange], None] = lambda _: None,
        on_lost: Callable[[str, int, int], None] = lambda _, __, ___: None,
    ) -> None:
        self._urls = urls
        self._rng = rng
        self._slow = slow
        self._tearing = tearing
        self._on_change = on_change
        self._on_lost = on_lost
        self._replica = ""
        self._tear_at = TEAR_FROM
        kind = "slow" if slow else "tearing" if tearing else "single" if single else "late" if late else "plain"
        self.segments = [WatchSegment(kind, prefix, single, first, first - 1)]
        self.torn = 0
        """Number of times that the watcher left in the middle of a revision."""
        self.resumed = 0
        self.contradictions: list[str] = []
        """Incomplete revisions that came again with other changes."""
        self._partial: list[ObservedChange] = []

    @property
    def segment(self) -> WatchSegment:
        """The segment that continues."""
        return self.segments[-1]

    async def run(self) -> None:
        """Watch until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=READ_S)
        limit = SLOW_BYTES if self._slow else 1 << 16
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=limit) as http:
            while True:
                self._replica = self._rng.choice(sorted(self._urls()))
                with suppress(ConnectionLostError, aiohttp.ClientError, TimeoutError, OSError):
                    await self._follow(http, self._urls()[self._replica])
                await asyncio.sleep(PAUSE_S * self._rng.random())

    async def _follow(self, http: aiohttp.ClientSession, url: str) -> None:
        what = "key" if self.segment.single else "prefix"
        query = f"{url}/watch?{what}={self.segment.prefix}&from_revision={self.segment.upto + 1}"
        async with http.get(query) as response:
            if response.status == 410:
                self._restart(int(response.headers["KV-Oldest-Revision"]))
            if response.status != 200:
                return
            self.resumed += 1
            pending: list[ObservedChange] = []
            async for fields in self._events(response):
                if fields.get("event") == "lost":
                    self._restart(int(msgspec.json.decode(fields["data"])["oldest_revision"]))
                    return
                if "data" in fields:
                    pending.append(_change(fields))
                    self._compare(pending)
                if "id" in fields:
                    self._deliver(int(fields["id"]), pending)
                    pending = []
                elif self._tearing and len(pending) == self._tear_at:
                    self._tear(pending)
                    return

    def _compare(self, pending: list[ObservedChange]) -> None:
        """Compare a change with the id before it, and with the change at the same place of the revision that came
        incompletely before."""
        if pending[-1].revision <= self.segment.upto:
            self.contradictions.append(f"{pending[-1]} came after the id {self.segment.upto}")
        place = len(pending) - 1
        if self._partial and pending[0].revision != self._partial[0].revision:
            self.contradictions.append(f"{self._partial[0]} did not come again before {pending[0]}")
            self._partial = []
        if place < len(self._partial) and self._partial[place] != pending[place]:
            self.contradictions.append(f"{self._partial[place]} came again as {pending[place]}")

    def _tear(self, pending: list[ObservedChange]) -> None:
        """Leave in the middle of a revision. The next tear of the same revision comes later in it, if at all."""
        self.torn += 1
        self._partial = pending
        self._tear_at += self._rng.randint(TEAR_FROM, TEAR_UPTO)

    def _deliver(self, revision: int, pending: list[ObservedChange]) -> None:
        if self._partial and revision >= self._partial[0].revision:
            if len(pending) < len(self._partial):
                self.contradictions.append(f"{self._partial[len(pending)]} did not come again")
            self._partial = []
        if len(pending) >= TEAR_FROM:
            self._tear_at = self._rng.randint(TEAR_FROM, TEAR_UPTO)
        self.segment.changes += pending
        self.segment.upto = max(self.segment.upto, revision)
        for change in pending:
            self._on_change(change)

    def _restart(self, oldest: int) -> None:
        """Begin a new segment at the oldest available revision."""
        segment = self.segment
        self._on_lost(self._replica, segment.upto + 1, oldest)
        self._partial = []
        self.segments.append(WatchSegment(segment.kind, segment.prefix, segment.single, oldest, oldest - 1))

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
        buffer = bytearray()
        chunks = response.content.iter_chunked(SLOW_BYTES) if self._slow else response.content.iter_any()
        async for data in chunks:
            buffer += data
            *blocks, rest = bytes(buffer).split(b"\n\n")
            buffer = bytearray(rest)
            for block in blocks:
                lines = block.decode().split("\n")
                yield dict(line.split(": ", 1) for line in lines if line and not line.startswith(":"))
            if self._slow and self._rng.random() < 0.3:
                await asyncio.sleep(SLOW_S * self._rng.random())


def _change(fields: Mapping[str, str]) -> ObservedChange:
    return change_of(msgspec.json.decode(fields["data"]))


def change_of(document: Mapping[str, Any]) -> ObservedChange:
    """Return the change that an event or a record of a list describes."""
    value = document.get("value")
    return ObservedChange(
        document["revision"],
        document["key"],
        value,
        document.get("version", 0),
        document.get("create_revision", 0),
    )


def now_ns() -> int:
    """Return the time of the clock of all histories."""
    return time.monotonic_ns()
