"""One replica on a bench. The test plays its peers, its disk and its clock, and accounts for everything it does.

`expect` drains the whole outbox and compares all of it: a message, record or answer that the test does not name fails.
"""

from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from paxos.configuration import ConfigurationVersion
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Chosen,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
)
from paxos.options import Options
from paxos.ready import Envelope, ReadReady, ServeFetch, ServeSnapshot, Write
from paxos.replica import Replica
from paxos.role import Role
from paxos.types import MS, NOOP, ZERO, Ballot, Configuration, NodeId, PValue, Slot, Time

ME = "n1"
"""The replica under test. Its peers are n2, n3 and so on."""

OPTIONS = Options(
    heartbeat_ms=100, lease_ms=500, clock_drift_ppm=10_000, retransmit_ms=200, stall_ms=1000, min_batch_bytes=1
)
LEADER_LEASE = 495 * MS
ACCEPTOR_LEASE = 505 * MS
START: Time = 1_000_000 * MS


class Work(msgspec.Struct):
    """Everything that one step asked for."""

    messages: list[Envelope]
    votes: list[Envelope]
    promise: Ballot | None
    accepts: list[PValue]
    chosen: list[tuple[Slot, bytes]]
    reads: list[ReadReady]
    fetches: list[ServeFetch | ServeSnapshot]


class Bench:
    """A replica, the clock it is shown, and the writes that its disk has not confirmed."""

    def __init__(
        self,
        *,
        nodes: int = 3,
        versions: Sequence[ConfigurationVersion] = (),
        options: Options = OPTIONS,
        promised: Ballot = ZERO,
        chosen: Slot = 0,
        tail: Iterable[PValue] = (),
        restarted: bool = False,
        seed: int = 1,
    ) -> None:
        """`versions`: the configurations, by default one of `nodes` voters."""
        self.now = START
        voters = (ME, *(f"n{number}" for number in range(2, nodes + 1)))
        self.replica = Replica(
            ME,
            versions or [ConfigurationVersion(1, Configuration(voters))],
            options,
            Random(seed),
            self.now,
            promised=promised,
            chosen=chosen,
            tail=list(tail),
            restarted=restarted,
        )
        self._undurable: list[Write] = []

    @property
    def peers(self) -> list[NodeId]:
        """Everybody else, in the order in which they are sent to."""
        return self.replica.configurations.others

    @property
    def voters(self) -> list[NodeId]:
        """Those of them that vote by the newest configuration."""
        return [peer for peer in self.peers if peer in self.replica.configurations.newest.voters]

    @property
    def majority(self) -> list[NodeId]:
        """As many of these, the first, as make one together with the replica."""
        return self.voters[: (len(self.voters) + 1) // 2]

    def role(self) -> Role:
        """What the replica does at this moment."""
        return self.replica.role

    def receive(self, sender: NodeId, *messages: AnyMessage) -> None:
        """These arrive, in this order."""
        for message in messages:
            self.replica.receive(sender, message, self.now)

    def later(self, ms: float) -> None:
        """Time passes; nobody looks at the clock."""
        self.now += int(ms * MS)

    def tick(self) -> None:
        """The host looks at the clock."""
        self.replica.tick(self.now)

    def ring(self) -> None:
        """Time passes until the replica wants to be called, and it is called."""
        self.now = max(self.now, self.replica.next_deadline())
        self.tick()

    def to_all(self, message: AnyMessage) -> list[Envelope]:
        """A broadcast."""
        return [Envelope(peer, message) for peer in self.peers]

    def expect(
        self,
        *messages: Envelope,
        votes: Iterable[Envelope] = (),
        promise: Ballot | None = None,
        accepts: Iterable[PValue] = (),
        chosen: Iterable[tuple[Slot, bytes]] = (),
        reads: Iterable[ReadReady] = (),
        fetches: Iterable[ServeFetch] = (),
    ) -> None:
        """Exactly this is the work of the step, in this order; what has to be written stays undurable for now."""
        ready = self.replica.take(self.now)
        write = ready.write or Write()
        if ready.write is not None:
            self._undurable.append(ready.write)
        found = Work(
            ready.messages, write.votes, write.promise, write.accepts, ready.chosen, ready.reads, ready.fetches
        )
        assert found == Work(
            list(messages), list(votes), promise, list(accepts), list(chosen), list(reads), list(fetches)
        )

    def durable(self) -> None:
        """The disk confirms all that was taken: the replica's votes to itself come back."""
        writes, self._undurable = self._undurable, []
        for write in writes:
            for vote in write.votes:
                if vote.to == ME:
                    self.replica.receive(ME, vote.message, self.now)


def to(node: NodeId, message: AnyMessage) -> Envelope:
    """A message on its way."""
    return Envelope(node, message)


def pre_vote(bench: Bench) -> int:
    """Let the replica's election time-out pass: it asks everybody. The nonce of the question."""
    bench.ring()
    nonce = bench.replica._roles.attempts
    bench.expect(*bench.to_all(PreVote(nonce, bench.replica.chosen + 1)))
    return nonce


def prepare(bench: Bench, *, highest: Ballot = ZERO) -> Ballot:
    """PreVote, hear a majority that is willing, and see the Prepare; the own promise is not durable yet."""
    nonce = pre_vote(bench)
    round_before = max(bench.replica.promised.round, highest.round)
    for peer in bench.majority:
        bench.receive(peer, PreVoteReply(nonce, willing=True, promised=highest, chosen=0))
    ballot = Ballot(round_before + 1, ME)
    from_slot = bench.replica.chosen + 1
    accepted, next_slot = bench.replica._log.page(from_slot)
    own = to(ME, Promise(ballot, from_slot, accepted, next_slot))
    prepares = [to(peer, Prepare(ballot, from_slot)) for peer in bench.voters]
    bench.expect(votes=[own, *prepares], promise=ballot)
    return ballot


def elect(bench: Bench, recovered: Iterable[PValue] = (), *, values: Iterable[bytes] = ()) -> Ballot:
    """Win an election in which n2 (and further peers, up to a majority) report `recovered`. `values`: what the leader
    must propose again because of it, before its own no-op."""
    ballot = prepare(bench)
    from_slot = bench.replica.chosen + 1
    bench.durable()
    for peer in bench.majority:
        bench.receive(peer, Promise(ballot, from_slot, tuple(recovered), 0))
    expect_accepts(bench, ballot, from_slot, [*values, NOOP], before=bench.to_all(Heartbeat(ballot, 1, from_slot - 1)))
    return ballot


def expect_accepts(
    bench: Bench, ballot: Ballot, from_slot: Slot, values: Iterable[bytes], *, before: Iterable[Envelope] = ()
) -> None:
    """The leader proposes `values` from `from_slot` on, to its peers and to its own disk, after `before`."""
    proposed = list(enumerate(values, from_slot))
    accepts = [Accept(ballot, slot, value, bench.replica.chosen) for slot, value in proposed]
    bench.expect(
        *before,
        *[envelope for accept in accepts for envelope in bench.to_all(accept)],
        votes=[to(ME, Accepted(ballot, slot)) for slot, _ in proposed],
        accepts=[PValue(slot, ballot, value) for slot, value in proposed],
    )


def establish(bench: Bench) -> Ballot:
    """Win an election with nothing to recover, and have the own no-op chosen. No lease yet."""
    ballot = elect(bench)
    slot = bench.replica.chosen + 1
    bench.durable()
    for peer in bench.majority:
        bench.receive(peer, Accepted(ballot, slot))
    bench.expect(*bench.to_all(Chosen(ballot, slot)), chosen=[(slot, NOOP)])
    return ballot


def reign(bench: Bench) -> Ballot:
    """Win an election, be established and hold a lease: counted from the moment of the election."""
    ballot = establish(bench)
    for peer in bench.majority:
        bench.receive(peer, ack(ballot, 1, chosen=bench.replica.chosen))
    bench.expect()
    assert bench.replica.lease_holds(bench.now)
    return ballot


def follow(bench: Bench, ballot: Ballot) -> None:
    """Hear a heartbeat of `ballot` and grant it a lease."""
    bench.receive(ballot.node, Heartbeat(ballot, 1, 0))
    votes = bench.replica._acceptor.votes(ballot)
    expected = HeartbeatAck(ballot, 1, granted=True, chosen=bench.replica.chosen, votes=votes)
    bench.expect(to(ballot.node, expected))
    assert bench.replica.leader_ballot == ballot


def ack(ballot: Ballot, nonce: int, *, granted: bool = True, chosen: Slot = 0) -> HeartbeatAck:
    """A voter's answer to a heartbeat; it knows of all its votes."""
    return HeartbeatAck(ballot, nonce, granted, chosen, votes=2**40)
