"""Peer links over loopback sockets, on asyncio's loop and on uvloop."""

import asyncio
import gc
import socket

import pytest

from kvstore.peers import transport as module
from kvstore.peers.handshake_messages import Channel
from kvstore.peers.transport import MAX_BULK_BYTES, Address
from paxos import wire
from paxos.messages import Fetch, Propose
from tests.unit.kvstore.peers.actors import (
    HOST,
    Lines,
    PeerNode,
    Run,
    free_port,
    good_link,
    strange_listener,
    stranger,
    welcome_both,
    who,
    works,
)


def test_messages_arrive_in_order_from_a_proved_sender_both_ways(run: Run) -> None:
    async def story() -> None:
        port = free_port()
        async with PeerNode("n1", {"n2": (HOST, port)}) as n1, PeerNode("n2", {"n1": n1.address}, port) as n2:
            assert await n1.changes.get() == ("n2", True)
            assert await n2.changes.get() == ("n1", True)
            assert n1.transport.connected("n2")
            messages = [Propose((bytes(size),)) for size in (0, 1, 2_000_000, 3)] + [
                Fetch(slot) for slot in range(3000)
            ]
            for message in messages:
                n1.transport.send("n2", wire.encode(message))
                n2.transport.send("n1", wire.encode(message))
            assert [await n2.inbox.get() for _ in messages] == [("n1", message) for message in messages]
            assert [await n1.inbox.get() for _ in messages] == [("n2", message) for message in messages]
            assert n1.transport.stats == module.TransportStats()

    run(story())


def test_the_newer_link_of_a_peer_replaces_the_older(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed), stranger(n2.address) as older, stranger(n2.address) as newer:
            await older.pose_as(who("n3"), "n2")
            await newer.pose_as(who("n3"), "n2")
            assert await older.read() is None
            newer.write(wire.encode(Fetch(9)))
            assert await n2.inbox.get() == ("n3", Fetch(9))
            await unharmed()

    run(story())


def test_one_link_of_a_peer_for_each_channel_is_kept(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed), stranger(n2.address) as messages, stranger(n2.address) as bulk:
            await messages.pose_as(who("n3"), "n2")
            await bulk.pose_as(who("n3"), "n2", Channel.BULK)
            for number, link in enumerate((messages, bulk, messages)):
                link.write(wire.encode(Fetch(number)))
                assert await n2.inbox.get() == ("n3", Fetch(number))
            await unharmed()

    run(story())


def test_a_link_comes_back_after_the_other_side_restarted(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": n2.address}) as n1:
            assert await n1.changes.get() == ("n2", True)
            for _ in range(3):
                await n2.transport.stop()
                assert await n1.changes.get() == ("n2", False)
                assert not n1.transport.connected("n2")
                n2 = PeerNode("n2", {"n1": nowhere}, n2.address[1])  # noqa: PLW2901 - the next life of the same node
                await n2.transport.start()
                assert await n1.changes.get() == ("n2", True)
                await works(n1, "n1", n2, "n2")
            await n2.transport.stop()

    run(story())


def test_a_peer_that_dials_is_dialled_at_once(run: Run, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_MIN_S", 3600)
    monkeypatch.setattr(module, "_RETRY_MAX_S", 3600)

    async def story() -> None:
        port = free_port()
        async with PeerNode("n1", {"n2": (HOST, port)}) as n1:
            await lines.wait_for("cannot reach n2 at", "start it or correct its address")
            async with PeerNode("n2", {"n1": n1.address}, port):
                assert await n1.changes.get() == ("n2", True)

    run(story())


def test_what_is_sent_without_a_link_is_dropped_and_counted(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n1", {"n2": nowhere}) as n1:
            n1.transport.send("n2", b"12345")
            n1.transport.send("n9", b"678")
            assert n1.transport.stats.dropped_frames == 2
            assert n1.transport.stats.dropped_bytes == 8
            assert n1.transport.queued_bytes == 0

    run(story())


def test_a_message_that_no_replica_would_take_is_dropped_by_its_sender(
    run: Run, nowhere: Address, lines: Lines
) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": n2.address}) as n1:
            assert await n1.changes.get() == ("n2", True)
            n1.transport.send("n2", bytes(wire.MAX_MESSAGE_BYTES + 1))
            await lines.wait_for("dropped a message", "to n2")
            await works(n1, "n1", n2, "n2")
            assert n1.transport.stats.dropped_frames == 1

    run(story())


def test_a_peer_that_does_not_read_costs_bounded_memory_and_gets_the_newest(run: Run) -> None:
    async def story() -> None:
        bound, frames, size = 4 << 20, 64, 1 << 20
        async with (
            strange_listener() as (address, callers),
            PeerNode("n1", {"n2": address}, max_queue_bytes=bound) as n1,
        ):
            peer = (await welcome_both(callers, who("n2")))[Channel.MESSAGES]
            assert await n1.changes.get() == ("n2", True)
            for number in range(frames):
                n1.transport.send("n2", number.to_bytes(4, "big") + bytes(size - 4))
                assert n1.transport.queued_bytes <= bound
                await asyncio.sleep(0)
            stats = n1.transport.stats
            assert stats.dropped_frames > 0
            assert stats.dropped_bytes == stats.dropped_frames * size
            received: list[int] = []
            while not received or received[-1] != frames - 1:
                payload = await peer.read()
                assert payload is not None
                received.append(int.from_bytes(payload[:4], "big"))
            assert received == sorted(set(received))
            assert received[-4:] == list(range(frames - 4, frames))
            assert len(received) == frames - stats.dropped_frames
            assert n1.transport.queued_bytes == 0

    run(story())


def test_a_full_queue_of_bulk_does_not_stand_before_a_message(run: Run) -> None:
    async def story() -> None:
        page = bytes(1 << 20)
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}) as n1:
            links = await welcome_both(callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            while n1.transport.queued_bytes < MAX_BULK_BYTES:  # nobody knows what the sockets take
                n1.transport.send("n2", page, Channel.BULK)
                await asyncio.sleep(0)
            n1.transport.send("n2", page, Channel.BULK)
            assert n1.transport.queued_bytes == MAX_BULK_BYTES
            n1.transport.send("n2", b"urgent")
            assert await links[Channel.MESSAGES].read() == b"urgent"
            assert n1.transport.queued_bytes > 0
            n1.transport.send("n2", b"the last page", Channel.BULK)
            pages = [page]
            while pages[-1] == page:
                pages.append(await links[Channel.BULK].read() or b"")
            assert pages[-1] == b"the last page"
            assert n1.transport.queued_bytes == 0

    run(story())


def test_a_queue_of_bulk_holds_the_longest_message_that_there_can_be(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": n2.address}) as n1:
            assert await n1.changes.get() == ("n2", True)
            message = Propose((bytes(wire.MAX_MESSAGE_BYTES - 64),))
            while n2.inbox.empty():  # until there is a bulk link
                n1.transport.send("n2", wire.encode(Fetch(1)), Channel.BULK)
                await asyncio.sleep(0)
            dropped = n1.transport.stats.dropped_frames
            n1.transport.send("n2", wire.encode(message), Channel.BULK)
            while (received := await n2.inbox.get()) == ("n1", Fetch(1)):
                pass
            assert received == ("n1", message)
            assert n1.transport.stats.dropped_frames == dropped

    run(story())


def test_only_the_link_for_messages_makes_a_peer_connected(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}) as n1:
            links = await welcome_both(callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            links[Channel.BULK].writer.transport.abort()
            again = await callers.get()
            assert n1.transport.connected("n2")
            n1.transport.send("n2", b"lost", Channel.BULK)
            assert n1.transport.stats.dropped_frames == 1
            assert await again.welcome(who("n2")) is Channel.BULK
            links[Channel.MESSAGES].writer.transport.abort()
            assert await n1.changes.get() == ("n2", False)
            assert not n1.transport.connected("n2")
            n1.transport.send("n2", b"lost")
            n1.transport.send("n2", b"page", Channel.BULK)
            assert await again.read() == b"page"
            assert n1.transport.stats.dropped_frames == 2
            assert n1.changes.empty()

    run(story())


def test_a_long_queue_stays_in_the_queue_while_the_socket_is_full(run: Run) -> None:
    async def story() -> None:
        async with (
            strange_listener() as (address, callers),
            PeerNode("n1", {"n2": address}, max_queue_bytes=1 << 30) as n1,
        ):
            await welcome_both(callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            for _ in range(64):
                n1.transport.send("n2", bytes(1 << 20))
            await asyncio.sleep(0)
            assert 32 << 20 <= n1.transport.queued_bytes < 64 << 20
            assert n1.transport.stats.dropped_frames == 0

    run(story())


def test_what_waits_for_a_link_that_breaks_is_counted_as_dropped(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}) as n1:
            peer = (await welcome_both(callers, who("n2")))[Channel.MESSAGES]
            assert await n1.changes.get() == ("n2", True)
            while n1.transport.queued_bytes < 4 << 20:
                n1.transport.send("n2", bytes(1 << 20))
                await asyncio.sleep(0)
            peer.writer.transport.abort()
            assert await n1.changes.get() == ("n2", False)
            assert n1.transport.stats.dropped_bytes >= 4 << 20
            assert n1.transport.queued_bytes == 0

    run(story())


def test_frames_of_one_turn_of_the_loop_leave_in_one_write(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": n2.address}) as n1:
            assert await n1.changes.get() == ("n2", True)
            link = n1.transport._outgoing["n2", Channel.MESSAGES]
            writes: list[bytes] = []

            class WatchedTransport:
                def write(self, data: bytes) -> None:
                    writes.append(data)
                    real.write(data)

            real, link.transport = link.transport, WatchedTransport()  # type: ignore[assignment]
            for slot in range(5):
                n1.transport.send("n2", wire.encode(Fetch(slot)))
            assert [await n2.inbox.get() for _ in range(5)] == [("n1", Fetch(slot)) for slot in range(5)]
            assert len(writes) == 1
            link.transport = real

    run(story())


def test_a_stop_in_the_middle_of_a_handshake_leaves_nothing_behind(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}) as n1:
            await (await callers.get()).read()
            await n1.transport.stop()
            assert not n1.transport._links

    run(story())


def test_a_stop_closes_connections_that_were_accepted_a_moment_ago(run: Run) -> None:
    async def story() -> None:
        for turns in range(8):
            async with PeerNode("n2", {}) as n2:
                with socket.create_connection(n2.address):
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await n2.transport.stop()
                    assert not n2.transport._links

    run(story())
    gc.collect()  # an unclosed socket is an error now


def test_what_was_sent_before_a_stop_still_arrives(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": n2.address}) as n1:
            assert await n1.changes.get() == ("n2", True)
            message = Propose((bytes(3_000_000),))
            n1.transport.send("n2", wire.encode(message))
            await n1.transport.stop()
            assert await n2.inbox.get() == ("n1", message)
            assert n1.changes.get_nowait() == ("n2", False)
            n1.transport.send("n2", b"late")
            assert n1.transport.stats.dropped_frames == 1

    run(story())


def test_a_stop_does_not_wait_for_a_peer_that_does_not_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.02)

    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}) as n1:
            await welcome_both(callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            while n1.transport.queued_bytes < 4 << 20:
                n1.transport.send("n2", bytes(1 << 20))
                await asyncio.sleep(0)
            await n1.transport.stop()
            assert n1.changes.get_nowait() == ("n2", False)

    run(story())
