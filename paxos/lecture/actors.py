"""The processes of the lecture: single roles of the production code, and whole replicas.

The code of the server makes all decisions: Acceptor, Phase1 and Pipeline (the two phases of a proposer), Learner and
Replica. An actor passes arriving messages to this code and collects the messages to send. The disk of an actor is
instantaneous: records are durable at once, and the votes that depend on them leave at once.
"""

from collections.abc import Collection, Sequence
from random import Random

from paxos.acceptor import Acceptor
from paxos.configuration import ConfigurationHistory, ConfigurationVersion
from paxos.context import RoleContext
from paxos.learner import Learner
from paxos.lease import LeaseGrant
from paxos.log import Log
from paxos.messages import Accept, Accepted, AnyMessage, Chosen, Learn, Prepare, Promise, Reject
from paxos.options import Options
from paxos.outbox import Outbox
from paxos.proposer import Phase1, Pipeline
from paxos.ready import Envelope, ServeFetch
from paxos.replica import Replica
from paxos.types import ZERO, Ballot, Configuration, NodeId, PValue, Slot, Time, pack, unpack

CONFIRMATIONS = {"lease": "its lease", "quorum": "a majority", "read_index": "the leader"}
"""Text for each way in which a read is confirmed, see ReadReady."""

Outgoing = list[Envelope]
"""The messages that an actor sends because of an event."""


def configuration_of(acceptors: Sequence[NodeId]) -> Configuration:
    """Return the configuration in which `acceptors` vote."""
    return Configuration(tuple(acceptors))


class Actor:
    """A process, shown as a lane of the diagram."""

    def __init__(self, name: NodeId) -> None:
        self.name = name
        self.notes: list[str] = []
        """Remarks for the diagram about the last event."""

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> Outgoing:
        """Process a message and return the messages to send."""
        raise NotImplementedError


class AcceptorActor(Actor):
    """A process that is only an acceptor."""

    def __init__(self, name: NodeId) -> None:
        super().__init__(name)
        self._out = Outbox()
        self._promise = ZERO
        self._accepts: dict[Slot, PValue] = {}
        self.acceptor = self._start(0, restarted=False)

    def restart(self, now: Time) -> None:
        """Restart with the stored promise and values."""
        self.acceptor = self._start(now, restarted=True)

    def _start(self, now: Time, *, restarted: bool) -> Acceptor:
        options = Options()
        log = Log(options, 0, [self._accepts[slot] for slot in sorted(self._accepts)])
        return Acceptor(self._promise, log, LeaseGrant(options, now, restarted=restarted), self._out)

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> Outgoing:
        """Answer Prepare and Accept; ignore any other message."""
        match message:
            case Prepare():
                self.acceptor.prepare(sender, message, now)
            case Accept():
                self.acceptor.accept(sender, message)
            case _:
                pass
        ready = self._out.take()
        if ready.write is None:
            return ready.messages
        self._promise = ready.write.promise or self._promise
        self._accepts |= {pvalue.slot: pvalue for pvalue in ready.write.accepts}
        return ready.messages + ready.write.votes


class LearnerActor(Actor):
    """A process that is only a learner: it stores proposed values and learns from the proposer which values are
    chosen."""

    def __init__(self, name: NodeId, acceptors: Sequence[NodeId]) -> None:
        super().__init__(name)
        self._out = Outbox()
        options = Options()
        self._acceptor = Acceptor(ZERO, Log(options, 0, []), LeaseGrant(options, 0, restarted=False), self._out)
        configurations = ConfigurationHistory(name, [ConfigurationVersion(1, configuration_of(acceptors))])
        self._learner = Learner(self._acceptor, RoleContext(name, configurations, options, self._out))
        self.learned: list[str] = []

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> Outgoing:  # noqa: ARG002 - a learner needs no time
        """Learn from Accept and Chosen; send nothing, because a learner has no vote."""
        match message:
            case Accept(ballot=ballot, chosen=chosen):
                if self._acceptor.accept(sender, message):
                    self._learner.accepted()
                    self._learner.announce(ballot, chosen)
            case Chosen(ballot=ballot, upto=upto):
                self._learner.announce(ballot, upto)
            case _:
                pass
        while self._learner.next_chosen():
            pass
        for slot, value in self._out.take().chosen:
            self.learned.append(spell(value))
            self.notes.append(f"learns that slot {slot} is {spell(value)}")
        return []


class ProposerActor(Actor):
    """A process that is only a proposer: it runs phase 1, then phase 2 for one slot after another."""

    def __init__(
        self,
        name: NodeId,
        acceptors: Sequence[NodeId],
        learners: Sequence[NodeId] = (),
        proposers: Sequence[NodeId] = (),
    ) -> None:
        """Create a proposer. It sends its values and its Chosen messages to `learners`, and only the Chosen messages to
        `proposers`."""
        super().__init__(name)
        self._configuration = configuration_of(acceptors)
        self._acceptors = acceptors
        self._learners = learners
        self._proposers = proposers
        self._configurations = ConfigurationHistory(name, [ConfigurationVersion(1, self._configuration)])
        self._wanted: list[str] = []
        self.phase1: Phase1 | None = None
        self.pipeline: Pipeline | None = None
        self._single = True
        self._prefix: Slot = 0
        self.proposed: dict[Slot, bytes] = {}
        self.chosen: dict[Slot, bytes] = {}
        self.preempted_by: Ballot | None = None
        """Highest promised ballot in the Rejects of the current ballot."""

    def prepare(self, number: int, value: str) -> Outgoing:
        """Begin phase 1 for one slot, and propose `value` if no promise reports another value."""
        return self._begin(number, [value], from_slot=1, single=True)

    def lead(self, number: int, values: Sequence[str]) -> Outgoing:
        """Begin phase 1 for every slot that is not known to be chosen, and propose `values` after the recovered
        values."""
        return self._begin(number, values, from_slot=self._prefix + 1, single=False)

    def _begin(self, number: int, values: Sequence[str], from_slot: Slot, *, single: bool) -> Outgoing:
        ballot = Ballot(number, self.name)
        self._wanted, self._single = list(values), single
        self.phase1, self.pipeline, self.preempted_by = Phase1(ballot, from_slot, [self._configuration]), None, None
        self.proposed = {}
        return [Envelope(acceptor, Prepare(ballot, from_slot)) for acceptor in self._acceptors]

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> Outgoing:
        """Count promises, then votes; ignore messages of other ballots."""
        if isinstance(message, Chosen):
            self._prefix = max(self._prefix, message.upto)  # a later phase 1 begins after these slots
            return []
        phase1 = self.phase1
        if phase1 is None or getattr(message, "ballot", None) != phase1.ballot:
            return []
        match message:
            case Promise():
                phase1.add_promise(sender, message)
                if self.pipeline is None and phase1.has_quorum():
                    self._elected(phase1)
                    return self._propose(phase1.ballot, now)
            case Accepted(slot=slot):
                if self.pipeline is not None and self.pipeline.accepted(sender, slot):
                    return self._choose(phase1.ballot, slot) + self._propose(phase1.ballot, now)
            case Reject(promised=promised):
                self.preempted_by = max(self.preempted_by or ZERO, promised)
            case _:
                pass
        return []

    def more(self, values: Sequence[str], now: Time) -> Outgoing:
        """Propose more values without another phase 1. Raises ValueError if this proposer was not elected."""
        if self.phase1 is None or self.pipeline is None:
            raise ValueError(f"{self.name} was not elected")
        for value in values:
            self.pipeline.enqueue((value.encode(),))
        return self._propose(self.phase1.ballot, now)

    def _elected(self, phase1: Phase1) -> None:
        recovered = phase1.recovered()
        if self._single:
            recovered = recovered or [pack([self._wanted[0].encode()])]
        # One slot in flight, with one value; the product has a larger window and larger batches.
        options = Options(window=1, max_batch_bytes=1)
        self.pipeline = Pipeline(phase1.from_slot, recovered, self._configurations, options)
        if not self._single:
            for value in self._wanted:
                self.pipeline.enqueue((value.encode(),))

    def _propose(self, ballot: Ballot, now: Time) -> Outgoing:
        if self.pipeline is None or (self._single and self.proposed):
            return []
        outgoing: Outgoing = []
        for slot, value in self.pipeline.propose(now, self._prefix):
            self.proposed[slot] = value
            message = Accept(ballot, slot, value, self._prefix)
            outgoing += [Envelope(to, message) for to in (*self._acceptors, *self._learners)]
        return outgoing

    def _choose(self, ballot: Ballot, slot: Slot) -> Outgoing:
        self.chosen[slot] = self.proposed[slot]
        self._prefix = max(self._prefix, slot)
        self.notes.append(f"knows that slot {slot} is chosen: {spell(self.proposed[slot])}")
        return [Envelope(to, Chosen(ballot, self._prefix)) for to in (*self._learners, *self._proposers)]


class ReplicaActor(Actor):
    """A whole replica as in the server, with all roles, elections and leases."""

    def __init__(self, name: NodeId, members: Sequence[NodeId], options: Options, now: Time) -> None:
        super().__init__(name)
        self.replica = Replica(
            name,
            [ConfigurationVersion(1, configuration_of(members))],
            options,
            Random(name),
            now,
            promised=ZERO,
            chosen=0,
            tail=[],
            restarted=False,
        )
        self.applied: list[str] = []
        self._stored: dict[Slot, PValue] = {}

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> Outgoing:
        """Process a message and return the messages to send."""
        self.replica.receive(sender, message, now)
        return self.act(now)

    def tick(self, now: Time) -> Outgoing:
        """Do what is due by `now`."""
        self.replica.tick(now)
        return self.act(now)

    def propose(self, values: Collection[str], now: Time) -> Outgoing:
        """Propose values, here or by the leader."""
        self.replica.propose(tuple(value.encode() for value in values))
        return self.act(now)

    def read(self, token: int, now: Time) -> Outgoing:
        """Begin a linearizable read."""
        self.replica.read(token, now, quorum=False)
        return self.act(now)

    def hand_over(self, now: Time) -> Outgoing:
        """Hand over leadership, as in a clean shutdown."""
        self.replica.hand_over(now)
        return self.act(now)

    def act(self, now: Time) -> Outgoing:
        """Carry out the work of the replica and return the messages to send. A vote of the replica for itself is passed
        back without a message."""
        outgoing: Outgoing = []
        while True:
            ready = self.replica.take(now)
            for slot, value in ready.chosen:
                self.applied += [payload.decode() for payload in unpack(value)]
                self.notes.append(f"knows that slot {slot} is chosen: {spell(value)}")
            self.notes += [
                f"may answer the read, confirmed by {CONFIRMATIONS[read.confirmed_by]}" for read in ready.reads
            ]
            outgoing += ready.messages
            votes = ready.write.votes if ready.write is not None else []
            if ready.write is not None:
                self._stored |= {pvalue.slot: pvalue for pvalue in ready.write.accepts}
            outgoing += [self._page(fetch) for fetch in ready.fetches if isinstance(fetch, ServeFetch)]
            outgoing += [vote for vote in votes if vote.to != self.name]
            own_votes = [vote for vote in votes if vote.to == self.name]
            for vote in own_votes:
                self.replica.receive(self.name, vote.message, now)
            if not own_votes and not ready.messages and not votes:
                return outgoing

    def _page(self, fetch: ServeFetch) -> Envelope:
        entries = tuple(self._stored[slot] for slot in range(fetch.from_slot, fetch.upto + 1))
        return Envelope(fetch.to, Learn(entries, self.replica.chosen, 0))


def spell(value: bytes) -> str:
    """Return the payloads of a value as text."""
    payloads = [payload.decode() for payload in unpack(value)]
    return " ".join(f'"{payload}"' for payload in payloads) if payloads else "a no-op"
