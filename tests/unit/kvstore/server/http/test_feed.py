"""The feed with connections that read as much as the test lets them."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kvstore.api.commands import CommandBatch, Put
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.server.http import event_pages, feed
from kvstore.server.http.event_pages import FRAME_BYTES
from kvstore.server.http.feed import Watcher, WatchFeed
from kvstore.server.pacer import BackgroundKind, Pacer
from kvstore.state_machine.history import History
from kvstore.state_machine.state_machine import StateMachine

BUFFER_BYTES = 64 * 1024


class SlowClient:
    """A connection whose write buffer is behind above BUFFER_BYTES, as that of asyncio."""

    def __init__(self) -> None:
        self.unsent: list[bytes] = []
        self.received = bytearray()
        self.is_gone = False
        self.writes_behind = 0

    @property
    def unsent_bytes(self) -> int:
        return sum(map(len, self.unsent))

    @property
    def is_behind(self) -> bool:
        return self.unsent_bytes > BUFFER_BYTES

    def write(self, chunk: bytes) -> None:
        self.writes_behind += self.is_behind
        self.unsent.append(chunk)

    def read(self) -> None:
        self.received += b"".join(self.unsent)
        self.unsent.clear()

    @property
    def revisions(self) -> list[int]:
        return [int(each) for each in re.findall(rb'"revision":(\d+)', self.received)]


class CountingPacer(Pacer):
    """A pacer that counts its work by kind."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.counts = dict.fromkeys(BackgroundKind, 0)

    def submit(self, kind: BackgroundKind, work: Callable[[], object]) -> None:
        self.counts[kind] += 1
        super().submit(kind, work)


class FedReplica:
    """A state machine, a feed of its changes, and watchers."""

    def __init__(self) -> None:
        self.machine = StateMachine([])
        self.pacer = CountingPacer()
        self.listeners: list[Callable[[], None]] = []
        self.commands = 0
        replica: Any = self
        self.feed = WatchFeed(replica)

    @property
    def history(self) -> History:
        return self.machine.history

    @property
    def position(self) -> int:
        return self.machine.position

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.commands += 1
        self.machine.apply(CommandBatch("n", 1, self.commands, self.commands, [Put(key, value)]), 1)
        for listener in self.listeners:
            listener()

    def watch(self, span: Span = EVERY_KEY, position: int = 0) -> tuple[Watcher, SlowClient]:
        client = SlowClient()
        connection: Any = client
        watcher = Watcher(span, position, connection)
        self.feed.follow(watcher)
        return watcher, client


async def settle(replica: FedReplica) -> None:
    """Wait until the feed has nothing to do."""
    while True:
        if not replica.pacer._is_scheduled and replica.feed._timer is None:
            return
        await asyncio.sleep(0.001)


def run(scenario: Callable[[FedReplica], Awaitable[None]]) -> None:
    async def main() -> None:
        replica = FedReplica()
        try:
            async with asyncio.timeout(60):
                await scenario(replica)
        finally:
            replica.feed.end()

    asyncio.run(main())


def test_stopped_watchers_hold_a_bounded_number_of_bytes_and_the_same_ones() -> None:
    """Values of 1 MB for 200 watchers that do not read: each has at most its write buffer and one frame, and all share
    the bytes."""

    async def scenario(replica: FedReplica) -> None:
        watched = [replica.watch() for _ in range(200)]
        await settle(replica)
        for number in range(12):
            replica.put(b"k%d" % number, b"x" * 1_000_000)
            await settle(replica)
        clients = [client for _, client in watched]
        assert max(client.unsent_bytes for client in clients) <= BUFFER_BYTES + FRAME_BYTES
        assert sum(client.writes_behind for client in clients) == 0
        assert all(watcher.left.is_set() for watcher, _ in watched)
        assert len({id(chunk) for client in clients for chunk in client.unsent}) <= 3
        assert replica.feed._pages._cached_bytes <= event_pages.CACHE_BYTES

    run(scenario)


def test_a_watcher_that_reads_again_goes_on_where_it_was() -> None:
    """Also within an event whose page has left the cache."""

    async def scenario(replica: FedReplica) -> None:
        watcher, client = replica.watch()
        for number in range(5):
            replica.put(b"k%d" % number, b"x" * 300_000)
        await settle(replica)
        while watcher.left.is_set():
            client.read()
            replica.feed._pages._cache.clear()
            replica.feed._pages._cached_bytes = 0
            replica.feed.follow(watcher)
            await settle(replica)
        client.read()
        assert client.revisions == [1, 2, 3, 4, 5]
        assert client.received.count(b"x" * 300_000) == 5

    run(scenario)


def test_a_watcher_with_a_page_of_before_does_not_wait_with_watchers_that_are_ahead() -> None:
    """Its page is in the cache since before the last event, which the others were sent."""

    async def scenario(replica: FedReplica) -> None:
        replica.put(b"a", b"x" * 300_000)
        watcher, client = replica.watch()
        await settle(replica)
        assert watcher.left.is_set()
        start = replica.position
        replica.put(b"b")
        replica.watch(position=start)
        await settle(replica)
        while watcher.left.is_set():
            client.read()
            replica.feed.follow(watcher)
            await settle(replica)
        replica.put(b"c")
        await settle(replica)
        client.read()
        assert client.revisions == [1, 2, 3]

    run(scenario)


def test_a_watcher_whose_events_are_compacted_is_lost_and_the_feed_tells_whether_within_an_event() -> None:
    async def scenario(replica: FedReplica) -> None:
        watcher, client = replica.watch()
        replica.put(b"a", b"x" * 300_000)
        await settle(replica)
        replica.machine.forget(replica.position)
        client.read()
        replica.feed._pages._cache.clear()
        replica.feed.follow(watcher)
        await settle(replica)
        assert watcher.left.is_set()
        assert watcher.is_lost
        assert watcher.frames > 0

    run(scenario)


def test_watchers_that_catch_up_share_each_page(encoded: list[int]) -> None:
    async def scenario(replica: FedReplica) -> None:
        for number in range(1000):
            replica.put(b"k%d" % number)
        watched = [replica.watch() for _ in range(60)]
        while any(watcher.position < replica.position for watcher, _ in watched):
            for watcher, client in watched:
                client.read()
                if watcher.left.is_set():
                    replica.feed.follow(watcher)
            await settle(replica)
        for _, client in watched:
            client.read()
        assert len(encoded) == len(set(encoded))
        assert all(client.revisions == list(range(1, 1001)) for _, client in watched)

    run(scenario)


def test_one_turn_writes_one_frame_to_a_watcher() -> None:
    """So a watcher that lacks much delays no other one."""

    async def scenario(replica: FedReplica) -> None:
        for number in range(2000):
            replica.put(b"k%d" % number)
        _, client = replica.watch()
        await settle(replica)
        assert max(map(len, client.unsent)) <= 2 * FRAME_BYTES
        assert replica.pacer.counts[BackgroundKind.REPLAY] >= len(client.unsent) > 1

    run(scenario)


def test_a_watcher_of_other_keys_is_not_woken() -> None:
    async def scenario(replica: FedReplica) -> None:
        watcher, client = replica.watch(Span(b"quiet", None))
        await settle(replica)
        advanced = replica.pacer.counts[BackgroundKind.REPLAY]
        replica.put(b"a")
        await settle(replica)
        assert replica.pacer.counts[BackgroundKind.REPLAY] == advanced
        assert replica.pacer.counts[BackgroundKind.EVENTS] == 1  # one look for all watchers of the range
        replica.put(b"quiet")
        await settle(replica)
        client.read()
        assert client.revisions == [2]
        assert watcher in replica.feed._groups[Span(b"quiet", None)].watchers

    run(scenario)


def test_watchers_that_come_at_different_times_miss_nothing() -> None:
    async def scenario(replica: FedReplica) -> None:
        clients = []
        for number in range(50):
            clients.append(replica.watch(Span(b"k", None), replica.position)[1])
            replica.put(b"k" if number % 3 else b"a")
            await asyncio.sleep(0)
        await settle(replica)
        for number, client in enumerate(clients):
            client.read()
            assert client.revisions == [each + 1 for each in range(number, 50) if each % 3]

    run(scenario)


def test_progress_is_told_to_those_that_were_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(replica: FedReplica) -> None:
        _, busy = replica.watch()
        _, quiet = replica.watch(Span(b"quiet", None))
        await settle(replica)
        replica.put(b"a")
        replica.feed._tell_progress()
        await settle(replica)
        for client in (busy, quiet):
            client.read()
        assert bytes(quiet.received) == b"id: 1\n\n"
        assert bytes(busy.received).count(b"id: ") == 1

    monkeypatch.setattr(feed, "PROGRESS_S", 1000.0)
    run(scenario)


def test_watchers_leave_when_the_client_is_gone_or_the_feed_ends() -> None:
    async def scenario(replica: FedReplica) -> None:
        gone, client = replica.watch()
        staying, _ = replica.watch()
        await settle(replica)
        client.is_gone = True
        replica.put(b"a")
        await settle(replica)
        assert gone.left.is_set()
        assert not staying.left.is_set()
        late, _ = replica.watch()
        replica.feed.end()
        await settle(replica)
        assert staying.left.is_set()
        assert late.left.is_set()
        assert replica.feed._groups == {}

    run(scenario)
