"""Who and what a peer link refuses, over loopback sockets; an existing good link is unharmed."""

import asyncio
import socket
from typing import Any

import pytest

from kvstore.api.framing import frame
from kvstore.peers.handshake import Dialer
from kvstore.peers.handshake_messages import MAX_HANDSHAKE_BYTES, NONCE_BYTES, Channel, LinkRefusal, ProcessIdentity
from kvstore.peers.transport import MAX_UNPROVED_LINKS, Address
from paxos import wire
from paxos.messages import Fetch
from tests.unit.kvstore.peers.actors import (
    HOST,
    IDENTITY,
    Lines,
    PeerNode,
    Run,
    free_port,
    good_link,
    strange_listener,
    stranger,
    who,
    works,
)

INTRUDERS: dict[LinkRefusal, tuple[str, dict[str, Any], str]] = {
    LinkRefusal.PROOF: ("n3", {"secret": b"another"}, "different secrets"),
    LinkRefusal.CLUSTER: ("n3", {"cluster": "blue"}, "'n3' is in cluster 'blue', 'n2' in cluster 'c'"),
    LinkRefusal.UNKNOWN_NODE: ("n9", {}, "'n9' is not a member known to 'n2'"),
    LinkRefusal.OWN_ID: ("n2", {}, "give every replica its own name"),
}


@pytest.mark.parametrize("reason", INTRUDERS)
def test_an_intruder_is_refused_in_both_logs_and_the_good_link_is_unharmed(
    run: Run, nowhere: Address, lines: Lines, reason: LinkRefusal
) -> None:
    name, settings, text = INTRUDERS[reason]

    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed):
            dialled = "n1" if name == "n2" else "n2"
            async with PeerNode(name, {dialled: n2.address}, **settings) as intruder:
                await lines.wait_for("this replica refused", text)
                await lines.wait_for("the peer refused", text)
                assert not intruder.transport.connected(dialled)
                stats = (n2.transport.stats, intruder.transport.stats)
                assert {*stats[0].refused, *stats[1].refused} == {reason}
                assert stats[0].refused_by_peers + stats[1].refused_by_peers > 0
                await unharmed()

    run(story())


def test_another_member_behind_an_address_is_refused(run: Run, nowhere: Address, lines: Lines) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed), PeerNode("n3", {"n1": n2.address}) as n3:
            await lines.wait_for(
                "this replica refused", "'n1' was dialled, but 'n2' answers: correct the address of 'n1'"
            )
            await lines.wait_for("link from 'n3'", "the peer refused", "'n1' was dialled, but 'n2' answers")
            assert n3.changes.empty()
            await unharmed()

    run(story())


OTHER_DISKS = [
    (IDENTITY._replace(incarnation=8), "'n3' has other data than before (incarnation 8, expected 7)"),
    (IDENTITY._replace(boot=4, life=44), "'n3' runs on an older copy of its data (start 4, was 5)"),
    (IDENTITY._replace(life=99), "two processes ran as 'n3' from one state of its data (start 5)"),
]


@pytest.mark.parametrize(("identity", "text"), OTHER_DISKS)
def test_a_peer_that_comes_back_with_other_data_is_refused(
    run: Run, nowhere: Address, lines: Lines, identity: ProcessIdentity, text: str
) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed):
            async with PeerNode("n3", {"n2": n2.address}) as n3:
                assert await n3.changes.get() == ("n2", True)
            async with PeerNode("n3", {"n2": n2.address}, identity=identity) as n3:
                await lines.wait_for("link from 'n3'", "this replica refused", text)
                await lines.wait_for("link to 'n2'", "the peer refused", text)
                assert n3.changes.empty()
            await unharmed()

    run(story())


@pytest.mark.parametrize(("identity", "text"), OTHER_DISKS)
def test_a_peer_that_is_found_with_other_data_is_refused(
    run: Run, nowhere: Address, lines: Lines, identity: ProcessIdentity, text: str
) -> None:
    async def story() -> None:
        port = free_port()
        async with PeerNode("n2", {"n3": (HOST, port)}) as n2:
            async with PeerNode("n3", {"n2": nowhere}, port):
                assert await n2.changes.get() == ("n3", True)
            assert await n2.changes.get() == ("n3", False)
            async with PeerNode("n3", {"n2": nowhere}, port, identity=identity):
                await lines.wait_for("link to 'n3'", "this replica refused", text)
                await lines.wait_for("link from 'n2'", "the peer refused", text)
                assert n2.changes.empty()

    run(story())


def test_of_two_processes_with_one_identity_the_first_keeps_its_links(run: Run, nowhere: Address, lines: Lines) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n3": nowhere}) as n2, PeerNode("n3", {"n2": n2.address}) as n3:
            assert await n3.changes.get() == ("n2", True)
            async with PeerNode("n3", {"n2": n2.address}, identity=IDENTITY._replace(life=99)) as twin:
                await lines.wait_for("link from 'n3'", "this replica refused", "stop one of them")
                await works(n3, "n3", n2, "n2")
                assert twin.changes.empty()
                assert n3.changes.empty()

    run(story())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", LinkRefusal.TOO_LONG),
        (frame(bytes(MAX_HANDSHAKE_BYTES + 1)), LinkRefusal.TOO_LONG),
        (frame(b"\xc1garbage"), LinkRefusal.GARBAGE),
        (frame(wire.encode(Fetch(1))), LinkRefusal.GARBAGE),
        (frame(b""), LinkRefusal.GARBAGE),
    ],
)
def test_bytes_that_are_no_handshake_are_refused(run: Run, nowhere: Address, sent: bytes, reason: LinkRefusal) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed), stranger(n2.address) as other:
            other.writer.write(sent)
            assert (await other.refusal()).reason is reason
            assert n2.transport.stats.refused == {reason: 1}
            await unharmed()

    run(story())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(b"\x01\xc1garbage"), LinkRefusal.GARBAGE),
        (frame(bytes([wire.VERSION + 1])), LinkRefusal.GARBAGE),
        ((wire.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + bytes(4 << 20), LinkRefusal.TOO_LONG),
    ],
)
def test_a_proved_peer_that_sends_garbage_is_told_and_cut_off(
    run: Run, nowhere: Address, lines: Lines, sent: bytes, reason: LinkRefusal
) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed), stranger(n2.address) as other:
            await other.pose_as(who("n3"), "n2")
            other.write(wire.encode(Fetch(5)))
            other.writer.write(sent + frame(wire.encode(Fetch(6))))
            assert (await other.refusal()).reason is reason
            await lines.wait_for("link from 'n3'", "this replica refused")
            assert n2.inbox.get_nowait() == ("n3", Fetch(5))
            assert n2.inbox.empty()
            await unharmed()

    run(story())


def test_the_reason_reaches_a_peer_that_reads_only_after_it_has_sent_everything(run: Run, nowhere: Address) -> None:
    def shout(address: Address) -> bytes:
        with socket.create_connection(address) as connection:
            connection.sendall(b"\xff" * (16 << 20))
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").read()

    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed):
            assert b"frame of 4294967295 bytes, at most 1024 are allowed" in await asyncio.to_thread(shout, n2.address)
            await unharmed()

    run(story())


def test_a_silent_stranger_is_cut_off_in_time(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere, handshake_ms=20) as (n2, unharmed), stranger(n2.address) as other:
            refused = await other.refusal()
            assert refused.reason is LinkRefusal.TIMEOUT
            assert "no complete handshake within 0.02 s" in refused.text
            await unharmed()

    run(story())


def test_a_silent_listener_is_given_up_and_dialled_again(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n1", {"n2": address}, handshake_ms=20) as n1:
            for first in (await callers.get(), await callers.get()):
                await first.read()
                assert (await first.refusal()).reason is LinkRefusal.TIMEOUT
                first.writer.close()
            await (await callers.get()).read()
            assert not n1.transport.connected("n2")

    run(story())


def test_strangers_that_prove_nothing_are_bounded_in_number(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, unharmed):
            crowd = [await asyncio.open_connection(*n2.address) for _ in range(MAX_UNPROVED_LINKS)]
            async with stranger(n2.address) as other:
                assert (await other.refusal()).reason is LinkRefusal.BUSY
            await unharmed()
            for _, writer in crowd:
                writer.close()

    run(story())


def test_the_same_complaint_is_made_once(run: Run, nowhere: Address, lines: Lines) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, _):
            for _ in range(3):
                async with stranger(n2.address) as other:
                    other.write(b"garbage")
                    await other.refusal()
            async with stranger(n2.address) as other:
                other.write(Dialer(who("n3", cluster="blue"), "n2", Channel.BULK, bytes(NONCE_BYTES)).hello())
                await other.refusal()
            assert n2.transport.stats.refused == {LinkRefusal.GARBAGE: 3, LinkRefusal.CLUSTER: 1}
            here = [line for line in lines.lines if "this replica refused" in line]
            assert ["link from 'an unknown node'" in line for line in here] == [True, False]

    run(story())


def test_a_port_in_use_is_said_with_what_to_do(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n1", {"n2": nowhere}) as n1:
            other = PeerNode("n2", {"n1": nowhere}, n1.address[1])
            with pytest.raises(OSError, match=rf"cannot listen for peers on {HOST}:\d+ .*stop the process that uses"):
                await other.transport.start()
            await other.transport.stop()

    run(story())


def test_a_host_that_cannot_be_one_is_complained_of(run: Run, lines: Lines) -> None:
    async def story() -> None:
        async with PeerNode("n1", {"n2": ("no..host", 1)}):
            await lines.wait_for("cannot reach n2 at no..host:1")

    run(story())
