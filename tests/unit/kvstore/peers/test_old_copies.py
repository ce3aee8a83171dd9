"""Rule 28: peers refuse an older copy of a replica's data if they were ever linked with a later start of it."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from kvstore.peers.handshake import Dialer, Listener, LocalEnd
from kvstore.peers.handshake_messages import (
    Channel,
    LinkRefusal,
    LinkRefused,
    ProcessIdentity,
    Proof,
    Start,
    decode,
    encode,
)
from kvstore.peers.transport import Address
from paxos import wire
from paxos.messages import Fetch
from storage.lineage import Lineage
from tests.unit.kvstore.peers.actors import IDENTITY, SECRET, PeerNode, Run, stranger, who, works

MEMBERS = frozenset({"n1", "n2", "n3"})


class Disk:
    """The data of a replica, as far as the handshake is concerned."""

    _lives: Iterator[int] = count(1000)

    def __init__(self, node: str, incarnation: int, boot: int = 0, lineage: Lineage = Lineage()) -> None:  # noqa: B008
        self._node = node
        self._incarnation = incarnation
        self._boot = boot
        self._lineage = lineage
        self._seen: dict[int, Start] = {}

    def start(self) -> LocalEnd:
        self._boot += 1
        self._lineage = self._lineage.after(self._boot, next(self._lives))
        identity = ProcessIdentity(self._incarnation, self._boot, self._lineage.life)
        end = LocalEnd("c", self._node, identity, SECRET, MEMBERS - {self._node})
        end.seen, end.includes = self._seen, self._lineage.includes
        return end

    def copy(self) -> "Disk":
        return Disk(self._node, self._incarnation, self._boot, self._lineage)


def link(dials: LocalEnd, listens: LocalEnd) -> None:
    dialer = Dialer(dials, listens.node, Channel.MESSAGES, b"d" * 32)
    listener = Listener(listens, b"l" * 32)
    answer = dialer.receive(listener.receive(dialer.hello()))
    assert answer is not None
    dialer.receive(listener.receive(answer))
    assert dialer.done
    assert listener.done


@pytest.fixture(params=["dials", "listens"])
def side(request: pytest.FixtureRequest) -> str:
    """What the replica does whose data may be a copy."""
    return str(request.param)


def met(side: str, replica: LocalEnd, peer: LocalEnd) -> LinkRefusal | None:
    """The reason why they are not linked."""
    ends = (replica, peer) if side == "dials" else (peer, replica)
    try:
        link(*ends)
    except LinkRefused as refused:
        return refused.reason if f"run `kvstore member replace {replica.node}`" in refused.text else LinkRefusal.OTHER
    return None


def test_rule_28_a_peer_that_restarted_knows_the_start_that_it_has_seen(side: str) -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    disk.start()
    copies = [disk.copy()]
    disk.start()
    copies.append(disk.copy())
    assert met(side, disk.start(), peer.start()) is None
    reasons = [met(side, copy.start(), peer.start()) for copy in copies]
    assert reasons == [LinkRefusal.OLDER_COPY, LinkRefusal.USED_TWICE]
    assert met(side, disk.start(), peer.start()) is None


def test_rule_28_a_copy_that_is_started_again_and_again_is_refused_for_ever(side: str) -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    link(disk.start(), peer.start())
    copy = disk.copy()
    link(disk.start(), peer.start())
    reasons = [met(side, copy.start(), peer.start()) for _ in range(5)]
    assert reasons == [LinkRefusal.USED_TWICE, *[LinkRefusal.OLDER_COPY] * 4]
    assert met(side, disk.start(), peer.start()) is None


def test_rule_28_a_replica_is_admitted_after_starts_that_its_peer_has_missed(side: str) -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    link(disk.start(), peer.start())
    newest = [disk.start() for _ in range(5)][-1]
    assert met(side, newest, peer.start()) is None


def test_a_copy_of_data_without_a_later_start_is_not_noticed(side: str) -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    link(disk.start(), peer.start())
    copy = disk.copy()
    assert met(side, copy.start(), peer.start()) is None
    assert met(side, disk.start(), peer.start()) is LinkRefusal.USED_TWICE


def test_the_starts_of_new_data_have_nothing_to_do_with_those_of_the_old(side: str) -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    link([disk.start() for _ in range(3)][-1], peer.start())
    assert met(side, Disk("n1", 9).start(), peer.start()) is None


def test_rule_28_a_copy_that_shakes_hands_while_another_process_is_linked_is_refused(side: str) -> None:
    """It was told what its peer had seen before that."""
    disk, peer = Disk("n1", 7), Disk("n2", 8).start()
    disk.start()
    copy = disk.copy()
    copy.start()
    late, newest = copy.start(), disk.start()
    assert late.identity.boot > newest.identity.boot
    dials, listens = (late, peer) if side == "dials" else (peer, late)
    dialer, listener = Dialer(dials, listens.node, Channel.BULK, b"D" * 32), Listener(listens, b"L" * 32)
    proof = dialer.receive(listener.receive(dialer.hello()))
    assert proof is not None
    link(newest, peer)
    with pytest.raises(LinkRefused, match="another process of 'n1' was linked during this handshake"):
        dialer.receive(listener.receive(proof))
    assert peer.seen == {7: newest.identity.start}


def test_the_start_that_a_dialer_names_is_part_of_its_proof() -> None:
    dialer, listener = Dialer(who("n1"), "n2", Channel.BULK, b"d" * 32), Listener(who("n2"), b"l" * 32)
    answer = dialer.receive(listener.receive(dialer.hello()))
    assert answer is not None
    proof = decode(answer)
    assert isinstance(proof, Proof)
    with pytest.raises(LinkRefused, match="different secrets"):
        listener.receive(encode(Proof(proof.proof, Start(1, 1))))


def test_a_start_is_not_recorded_before_the_replica_has_looked_at_its_own_lineage() -> None:
    disk, peer = Disk("n1", 7), Disk("n2", 8)
    link(disk.start(), peer.start())
    copy = disk.copy()
    link(newest := disk.start(), peer.start())
    copy.start()
    for dials in (True, False):
        copied, other = copy.start(), peer.start()
        assert met("dials" if dials else "listens", copied, other) is LinkRefusal.OLDER_COPY
        assert other.seen == {7: newest.identity.start}
        assert "n1" not in other.last_proved


_Waiting = asyncio.Queue[tuple[ProcessIdentity, Callable[[], None]]]


@pytest.mark.parametrize("slow", ["n1", "n2"])
def test_rule_28_no_link_is_used_before_the_start_of_the_peer_is_durable(run: Run, nowhere: Address, slow: str) -> None:
    """Whether it is the dialer, n1, or the listener who waits for its disk."""

    async def story() -> None:
        waiting: _Waiting = asyncio.Queue()
        disk: dict[str, Any] = {"remember": lambda *start: waiting.put_nowait(start)}
        async with (
            PeerNode("n2", {"n1": nowhere}, **disk if slow == "n2" else {}) as n2,
            PeerNode("n1", {"n2": n2.address}, **disk if slow == "n1" else {}) as n1,
        ):
            starts = [await waiting.get() for _ in Channel]
            assert [start for start, _ in starts] == [IDENTITY] * len(Channel)
            assert not n1.transport.connected("n2")
            for _, done in starts:
                done()
            assert await n1.changes.get() == ("n2", True)
            await works(n1, "n1", n2, "n2")
            async with stranger(n2.address) as again:
                await again.pose_as(who("n1"), "n2")
            assert waiting.empty()

    run(story())


def test_a_link_that_was_lost_while_the_disk_was_slow_is_not_used(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        waiting: _Waiting = asyncio.Queue()
        async with PeerNode("n2", {"n1": nowhere}, remember=lambda *start: waiting.put_nowait(start)) as n2:
            async with PeerNode("n1", {"n2": n2.address}) as n1:
                starts = [await waiting.get() for _ in Channel]
                assert n1.changes.empty()
            await asyncio.gather(*(link.closed.wait() for link in n2.transport._links))
            for _, done in starts:
                done()
            assert n2.transport._incoming == {}

    run(story())


def test_a_peer_that_sends_before_it_is_welcome_is_refused(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        waiting: _Waiting = asyncio.Queue()
        async with (
            PeerNode("n2", {"n1": nowhere}, remember=lambda *start: waiting.put_nowait(start)) as n2,
            stranger(n2.address) as hasty,
        ):
            dialer = Dialer(who("n1"), "n2", Channel.MESSAGES, b"d" * 32)
            hasty.write(dialer.hello())
            challenge = await hasty.read()
            assert challenge is not None
            proof = dialer.receive(challenge)
            assert proof is not None
            hasty.write(proof)
            await waiting.get()
            hasty.write(wire.encode(Fetch(1)))
            assert (await hasty.refusal()).reason is LinkRefusal.GARBAGE
            assert n2.inbox.empty()

    run(story())
