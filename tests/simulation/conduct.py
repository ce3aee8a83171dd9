"""How replicas behave, apart from what they answer: each rule here is one whose breach costs time or work, or loses a
value only after a second rare event, so that no answer tells of it."""

from typing import NamedTuple

from paxos.candidate import Candidate
from paxos.messages import Fetch, Learn, Prepare, PreVoteReply, Promise, Propose, ReadIndex, ReleaseLease
from paxos.quorum import is_quorum
from paxos.ready import Ready, ServeFetch
from paxos.role import Role
from paxos.types import MS, Ballot, NodeId, Slot, Time
from storage.base import StateWrite
from storage.hard_state import HardState
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.simulation.rarity import StepWatcher

LATE_MS = 100
"""Time, besides that between two heartbeats, which a leader may let pass until it looks whether it has to step down.
After a longer time without a step it was paused."""


class Conduct:
    """The record of one life of a replica so far."""

    def __init__(self, durable: HardState) -> None:
        self.voted = durable.promised
        """The ballot of its last vote."""
        self.prepared: Ballot | None = None
        """The ballot of its last Prepare."""
        self.truncated = durable.truncation.slot
        """The slot up to which its log is truncated, once its writes so far are durable."""
        self.compact = durable.compact
        """The position up to which its storage compacts, once its writes so far are durable."""
        self.candidate: Candidate | None = None
        """Its attempt to lead, after the last step."""
        self.fetch: tuple[Slot, Time] | None = None
        """The last slots that it asked for, and when."""
        self.followed: Ballot | None = None
        """The leader after the last step."""
        self.led: Ballot | None = None
        """The ballot under which it led after the last step."""
        self.lease_until: Time = 0
        """The end of its lease after the last step."""
        self.stuck: tuple[Ballot, Slot, Time] | None = None
        """As a leader, the first slot that is not known to be chosen, and since when."""
        self.overdue: Time | None = None
        """Since when it has to step down, as it could notice."""
        self.stepped_at: Time = 0
        """The time of its last step."""


class Willing(NamedTuple):
    """One attempt of a candidate, to which voters are willing to promise."""

    candidate: NodeId
    nonce: int


class ConductWatcher(StepWatcher):
    """Checks each step of each replica."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._is_timed = not cluster.scenario.faults.pause_in_call and cluster.scenario.clocks_keep_the_bound
        """False if a replica may act on an older time than that of its clock, or if its clock stands still."""
        self._lives: dict[NodeId, Conduct] = {}
        self._willing: dict[Willing, set[NodeId]] = {}
        self._promised: dict[Ballot, set[NodeId]] = {}
        """Who has told the last page of its promise of each ballot."""
        cluster.watchers.append(self)

    def started(self, machine: SimulatedMachine) -> None:
        """A new life begins with what its disk holds."""
        self._lives[machine.name] = Conduct(machine.durable.hard_state)

    def moved(self, machine: SimulatedMachine) -> None:
        """No acceptor encourages a candidate while it has granted a lease to another (rule 13)."""
        if machine.node is None:
            return
        replica = machine.node.replica
        messages = replica._out._ready.messages
        if messages and isinstance(reply := messages[-1].message, PreVoteReply) and reply.willing:
            refuses = replica._acceptor.grant.refuses(messages[-1].to, machine.clock())
            assert not refuses, f"{machine.name} encourages {messages[-1].to} under a grant to another"

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Look at what it sends, and at whom it follows."""
        life = self._lives[machine.name]
        self._check_state(machine, life, ready)
        self._check_votes(machine, life, ready)
        self._check_messages(machine, life, ready)
        self._check_leading(machine, life, ready)

    def _check_state(self, machine: SimulatedMachine, life: Conduct, ready: Ready) -> None:
        """Nothing is compacted while a peer reads the state (rule 26), and an attempt to lead ends with a new state
        (rule 20)."""
        node, write = machine.node, ready.write
        assert node is not None
        if isinstance(write, StateWrite):
            progress = write.staged.page.progress if write.staged is not None else None
            if progress is not None:
                candidate = node.replica._roles.candidate
                assert candidate is None or candidate is not life.candidate, f"{machine.name} goes on as a candidate"
                life.truncated, life.compact = progress.applied, node._checkpointer._compacted
            if write.truncate is not None:
                life.truncated = write.truncate.slot
            if write.compact:
                more = 0 < life.compact < write.compact  # a restored state is compacted when the cluster is founded
                held = more and node._checkpointer.outgoing.defer_compaction(machine.clock())
                assert not held, f"{machine.name} compacts while a peer reads its state"
                life.compact = write.compact
        life.candidate = node.replica._roles.candidate

    def _check_votes(self, machine: SimulatedMachine, life: Conduct, ready: Ready) -> None:
        """The ballots of an acceptor's votes never decrease (rule 8), nobody prepares without having asked first
        (rule 13)."""
        for vote in ready.write.votes if ready.write is not None else ():
            message = vote.message
            assert not hasattr(message, "ballot") or isinstance(message, Prepare) or message.ballot >= life.voted, (
                f"{machine.name} votes with {message} after a vote for {life.voted}"
            )
            if isinstance(message, Prepare):
                self._check_prepare(machine, life, message)
                continue
            life.voted = getattr(message, "ballot", life.voted)
            if isinstance(message, Promise):
                self._check_promise(machine, message)
            if isinstance(message, Promise) and not message.next_slot:
                self._promised.setdefault(message.ballot, set()).add(machine.name)

    @staticmethod
    def _check_promise(machine: SimulatedMachine, message: Promise) -> None:
        """A promise tells all that the disk holds (rule 8)."""
        hard_state = machine.durable.hard_state
        first = max(message.from_slot, hard_state.chosen + 1)
        last = message.next_slot - 1 if message.next_slot else hard_state.last
        told = {pvalue.slot for pvalue in message.accepted}
        missing = [pvalue.slot for pvalue in machine.durable.read(first, last, 0) if pvalue.slot not in told]
        assert first > last or not missing, f"{machine.name} does not tell of slots {missing} in {message}"

    def _check_prepare(self, machine: SimulatedMachine, life: Conduct, message: Prepare) -> None:
        assert machine.node is not None
        before, life.prepared = life.prepared, message.ballot
        if life.led is not None or before == message.ballot:
            return  # it wins a vote back, or asks for the next page
        replica = machine.node.replica
        configuration = replica.configurations.at(message.from_slot)
        if before is not None and is_quorum(self._promised.get(before, set()), configuration):
            return  # it led since the last step, and has applied members whom its phase 1 does not cover
        willing = self._willing.get(Willing(machine.name, replica._roles.attempts), set()) | {machine.name}
        assert is_quorum(willing, configuration), (
            f"{machine.name} prepares {message.ballot}, and only {sorted(willing)} are willing"
        )

    def _check_messages(self, machine: SimulatedMachine, life: Conduct, ready: Ready) -> None:
        """One Fetch is under way at a time (rule 26), none asks for slots that are known to be truncated, and one that
        does is answered (rule 11)."""
        node = machine.node
        assert node is not None
        for envelope in ready.messages:
            message = envelope.message
            if isinstance(message, PreVoteReply) and message.willing:
                self._willing.setdefault(Willing(envelope.to, message.nonce), set()).add(machine.name)
            elif isinstance(message, Fetch):
                at = machine.clock()
                slot, asked = life.fetch or (0, 0)
                assert (
                    not self._is_timed or message.from_slot != slot or at >= asked + machine.options.retransmit_ms * MS
                ), f"{machine.name} asks for slot {message.from_slot} again without waiting for an answer"
                life.fetch = message.from_slot, at
                assert message.from_slot > node.replica._learner._truncated, (
                    f"{machine.name} asks for slot {message.from_slot}, which is truncated"
                )
            elif isinstance(message, Learn):
                assert message.truncated <= life.truncated, f"{machine.name} tells of a truncation that is not stored"
        for fetch in ready.fetches:
            assert not isinstance(fetch, ServeFetch) or fetch.from_slot > node._checkpointer.truncated, (
                f"{machine.name} looks for slot {fetch.from_slot}, which is truncated, and answers nothing"
            )

    def _check_leading(self, machine: SimulatedMachine, life: Conduct, ready: Ready) -> None:
        node, now = machine.node, machine.clock()
        assert node is not None
        replica = node.replica
        leading = replica.leader_ballot if replica.role is Role.LEADER else None
        if leading is not None and leading != life.led:
            self._check_elected(machine, leading)
        released = {e.message.ballot for e in ready.messages if isinstance(e.message, ReleaseLease)}
        assert leading not in released, f"{machine.name} leads on after it has given its lease up"
        if life.led is not None and replica.leader_ballot is None and replica.role is Role.FOLLOWER:
            outbid = replica.promised.node != machine.name
            stalls = life.stuck is not None and now - life.stuck[2] > machine.options.stall_ms * MS
            assert not self._is_timed or machine.stopping or released or outbid or stalls or now >= life.lease_until, (
                f"{machine.name} steps down within its lease"
            )
        if replica.leader_ballot not in {life.followed, None, leading}:
            self._check_repeated(machine, ready)
        if self._is_timed:
            self._check_progress(machine, life, leading, now)
        life.led, life.followed = leading, replica.leader_ballot
        life.lease_until = replica.lease_until or 0 if replica.lease_holds(now) else 0

    def _check_elected(self, machine: SimulatedMachine, ballot: Ballot) -> None:
        """A leader has whole promises of a majority (rule 9)."""
        assert machine.node is not None
        replica = machine.node.replica
        promised = self._promised.get(ballot, set())
        assert is_quorum(promised, replica.configurations.at(replica.chosen + 1)), (
            f"{machine.name} leads under {ballot}, which only {sorted(promised)} have promised"
        )

    def _check_repeated(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Check that the requests to the former leader are sent to the next one at once (rule 20)."""
        node = machine.node
        assert node is not None
        put = {
            payload
            for envelope in ready.messages
            if isinstance(envelope.message, Propose)
            for payload in envelope.message.payloads
        }
        missing = [batch for batch, sent in node._proposals._sent.items() if sent.data not in put]
        assert not missing, f"{machine.name} does not put batches {missing} to the new leader"
        asked = {envelope.message.token for envelope in ready.messages if isinstance(envelope.message, ReadIndex)}
        waiting = node.replica._reads._requested.keys() - asked
        assert not waiting, f"{machine.name} does not ask the new leader for read indexes {waiting}"

    def _check_progress(self, machine: SimulatedMachine, life: Conduct, leading: Ballot | None, now: Time) -> None:
        """A leader steps down if the first slot is not chosen, no majority answers, or its disk is silent (rule 19)."""
        assert machine.node is not None
        replica, late = machine.node.replica, (machine.options.heartbeat_ms + LATE_MS) * MS
        awake = now - life.stepped_at < late
        life.stepped_at = now
        slot, leader = replica._learner._known + 1, replica._roles.leader
        if leader is None or leader.pipeline.next_slot <= slot or slot <= machine.node.applied:
            life.stuck = None
        elif life.stuck is None or life.stuck[:2] != (leading, slot):
            life.stuck = leader.ballot, slot, now
        if leader is None:
            life.overdue = None
            return
        votes = leader._own_votes[0][1] if leader._own_votes else now
        since = min(life.stuck[2] if life.stuck is not None else now, leader._confirmed_at, votes)
        if now - since <= machine.options.stall_ms * MS:
            life.overdue = None
        else:
            life.overdue = life.overdue if life.overdue is not None and awake else now
            assert now - life.overdue < 2 * late, f"{machine.name} leads on without progress at slot {slot}"
