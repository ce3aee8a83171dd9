"""One replica: all roles of Multi-Paxos together.

The host passes each event (`receive`, `propose`, `read`, `tick`) with the time of its clock *after* the event, and
takes the resulting work (`take`). No method waits, sends, stores or reads a clock.

Why a read under the lease is current: a leader of ballot b holds grants of a majority, so no candidate can get promises
of a majority, and no value is chosen under a ballot above b. No value is chosen under a ballot below b either, because
a majority promised b. The leader is the first to know which values are chosen under b. So as long as its lease holds,
its chosen prefix contains every write that any replica has acknowledged (rule 18).
"""

from collections.abc import Sequence
from random import Random
from typing import assert_never

from paxos.acceptor import Acceptor
from paxos.configuration import ConfigurationHistory, ConfigurationVersion
from paxos.context import RoleContext
from paxos.errors import ForgottenVotesError, require
from paxos.learner import Learner
from paxos.lease import LeaseGrant
from paxos.log import Log
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Chosen,
    DigestMismatch,
    DigestReply,
    DigestRequest,
    Fetch,
    FetchSnapshot,
    ForgottenVotes,
    FoundingState,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Reject,
    ReleaseLease,
    SnapshotPage,
)
from paxos.options import Options
from paxos.outbox import Outbox
from paxos.reads import ReadIndexTracker
from paxos.ready import Ready
from paxos.role import Role, RoleState
from paxos.types import MS, Ballot, Configuration, Count, GrantTerms, NodeId, PValue, Slot, Time


class Replica:
    """One member of the cluster. All calls come from one thread."""

    def __init__(
        self,
        node: NodeId,
        versions: Sequence[ConfigurationVersion],
        options: Options,
        rng: Random,
        now: Time,
        *,
        promised: Ballot,
        chosen: Slot,
        tail: list[PValue],
        restarted: bool,
        granted: GrantTerms = GrantTerms(),  # noqa: B008 - immutable
    ) -> None:
        """Start from the durable state.

        `versions` are the configurations of the slots after the chosen prefix, see ConfigurationHistory. `promised` and
        `chosen` are the stored promise and chosen prefix, and `tail` holds the accepted values from some slot at or
        below `chosen` + 1 to the end of the log. `restarted` is True unless the storage is new: the replica may have
        granted a lease just before it stopped (rule 17). `granted` are the longest terms of such a lease. Raises
        InvariantError if a value was accepted above the promise.
        """
        require(all(pvalue.ballot <= promised for pvalue in tail), "an accepted ballot is above the stored promise")
        self.node = node
        self.options = options
        self._out = Outbox()
        self.configurations = ConfigurationHistory(node, versions)
        context = RoleContext(node, self.configurations, options, self._out)
        self._log = Log(options, chosen, tail)
        grant = LeaseGrant(options, now, restarted=restarted, granted=granted)
        self._acceptor = Acceptor(promised, self._log, grant, self._out)
        self._learner = Learner(self._acceptor, context)
        self._reads = ReadIndexTracker(options.retransmit_ms * MS)
        first_due = self._acceptor.grant.until if restarted else now
        self._roles = RoleState(context, self._acceptor, self._learner, self._reads, rng=rng, first_due=first_due)

    # Status

    @property
    def role(self) -> Role:
        """The current role."""
        return self._roles.role

    @property
    def leader_ballot(self) -> Ballot | None:
        """Ballot of the leader that this replica is or follows, None if no leader is known."""
        return self._roles.leader_ballot

    @property
    def accepts_proposals(self) -> bool:
        """True if `propose` would take payloads now."""
        leader = self._roles.leader
        return leader.pipeline.has_room if leader is not None else self._roles.followed is not None

    @property
    def promised(self) -> Ballot:
        """The acceptor's promise."""
        return self._acceptor.promised

    @property
    def chosen(self) -> Slot:
        """The chosen prefix."""
        return self._log.chosen

    @property
    def caught_up(self) -> bool:
        """True if a leader is known and this replica lacks no slot that a peer has reported as chosen; on the leader,
        once it is established."""
        leader = self._roles.leader
        if leader is not None:
            return leader.established
        return self._roles.followed is not None and not self._learner.behind

    @property
    def snapshot_source(self) -> NodeId | None:
        """A peer that has truncated slots which this replica lacks, so that this replica needs its snapshot; otherwise
        None."""
        return self._learner.snapshot_source if self._roles.leader is None else None

    @property
    def queued(self) -> int:
        """Number of payloads that wait for a slot on the leader; 0 on other replicas."""
        return self._roles.leader.pipeline.queued if self._roles.leader is not None else 0

    @property
    def lease_until(self) -> Time | None:
        """End of the leader's lease; None on other replicas."""
        return self._roles.leader.lease.until if self._roles.leader is not None else None

    def chosen_by(self, member: NodeId) -> Slot:
        """Return, on the leader, the chosen prefix that `member` reported last; 0 on other replicas."""
        return self._roles.leader.chosen_by(member) if self._roles.leader is not None else 0

    def lease_holds(self, now: Time) -> bool:
        """Return True if a read of the applied state is linearizable without any message (rule 18)."""
        return self._roles.leader is not None and self._roles.leader.lease_holds(now)

    def next_deadline(self) -> Time:
        """Return the latest time at which to call `tick`."""
        requests = self._reads.next_deadline() if self.leader_ballot is not None else None
        others = (requests, self._learner.next_deadline())
        return min([self._roles.next_deadline(), *(other for other in others if other is not None)])

    # Events

    def propose(self, payloads: tuple[bytes, ...]) -> bool:
        """Queue payloads if this replica leads, or send them to the known leader.

        Returns False, without any effect, if no leader is known or the queue is full. True is no guarantee: the caller
        sees the payloads applied, or proposes them again.
        """
        if self._roles.leader is not None:
            return self._roles.leader.pipeline.enqueue(payloads)
        if self._roles.followed is not None:
            self._out.send(self._roles.followed.node, Propose(payloads))
            return True
        return False

    def read(self, token: Count, now: Time, *, quorum: bool) -> None:
        """Request the slot to apply before a linearizable read. The answer is a ReadReady with this token."""
        self._reads.begin(token, now, quorum=quorum)

    def forget_read(self, token: Count) -> None:
        """Drop the read of `token`: its caller no longer waits."""
        self._reads.forget(token)

    def tick(self, now: Time) -> None:
        """Do what is due by `now`."""
        self._roles.tick(now)

    def step_aside(self, now: Time) -> None:
        """Hand leadership over to the voter with the longest log, if this replica leads. It may lead again."""
        self._roles.step_aside(now)

    def hand_over(self, now: Time) -> None:
        """Hand leadership over to the voter with the longest log, if this replica leads, and never try to lead again:
        the process is about to shut down."""
        self._roles.retire(now)

    def reconfigure(self, version: ConfigurationVersion, now: Time) -> None:
        """Take a configuration into account that the host has applied (rule 27)."""
        self.configurations.add(version)
        self._roles.reconfigure(version.first, now)

    def install_snapshot(self, slot: Slot, versions: Sequence[ConfigurationVersion], now: Time) -> None:
        """Continue after `slot`: the host has installed a snapshot as of that slot, with these configurations.

        An attempt to lead is abandoned, because it began at an earlier slot. Raises InvariantError on a leader, which
        needs no snapshot.
        """
        require(self._roles.leader is None, "a leader was given a snapshot")
        self.configurations.replace(versions)
        self._learner.install_snapshot(slot)
        self._roles.abandon_attempt(now)

    def begin(self, slot: Slot, versions: Sequence[ConfigurationVersion]) -> None:
        """Take the first configurations of a new cluster, in place of the empty one (rule 30). The log of the cluster
        begins after `slot`: 0, or the slot of a restored state."""
        require(self.chosen == 0, f"a replica that knows slots up to {self.chosen} to be chosen was told to begin")
        self.configurations.replace(versions)
        if slot:
            self._learner.install_snapshot(slot)

    def forget_configurations(self) -> None:
        """Treat no slot as chosen until `install_snapshot`, because the host has no state. Accept values as before."""
        require(self.role is Role.FOLLOWER, f"a {self.role} was told to forget its configurations")
        self.configurations.replace([ConfigurationVersion(1, Configuration(()))])

    def next_chosen(self) -> tuple[Slot, bytes] | None:
        """Advance the chosen prefix by one slot and return the slot and its value, which the next Ready lists too.
        Return None if the next slot is not known to be chosen.

        A host that applies a slot in several steps takes no further slot before it has applied that one: the
        configurations, and so the elections, of this replica must lag behind its chosen prefix by one slot at most
        (rule 27).
        """
        return self._learner.next_chosen()

    def take(self, now: Time, *, applied: Slot | None = None) -> Ready:
        """Return the work that results from all events since the last call.

        `applied` is the last slot that the host has applied. None stands for a host that takes every chosen slot with
        this call, and has applied them by the next one.
        """
        delivered = self.chosen if applied is None else applied
        while applied is None and self.next_chosen():
            pass
        self._send_read_requests(now)
        forgotten = self.configurations.forget_before(self.chosen + 1)
        leader = self._roles.leader
        if leader is not None:
            if forgotten:
                leader.configuration_ended()
            leader.flush(now, delivered)
        self._learner.fetch(now)
        for token, slot, confirmed_by in self._reads.reached(self.chosen if applied is None else applied):
            self._out.answer_read(token, slot, confirmed_by)
        return self._out.take()

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> None:  # noqa: C901, PLR0912 - one case for each message
        """Process a message of the authenticated member `sender`. A message that speaks for a ballot counts only if it
        comes from the node of the ballot (rule 9)."""
        promised = self._acceptor.promised
        leader = self._roles.leader
        match message:
            case Accepted():
                if leader is not None:
                    leader.accepted(sender, message)
            case Accept(ballot=ballot) | Heartbeat(ballot=ballot) | Chosen(ballot=ballot) | ReleaseLease(ballot=ballot):
                if ballot.node == sender:
                    self._from_leader(sender, message, now)
            case HeartbeatAck():
                if leader is not None:
                    leader.acknowledged(sender, message, now)
            case Propose(payloads=payloads):
                if leader is not None:
                    leader.pipeline.enqueue(payloads)
            case ReadIndex(token=token, quorum=quorum):
                if leader is not None:
                    leader.read(sender, token, quorum=quorum)
            case ReadIndexReply(token=token, slot=slot):
                self._reads.index(token, slot)
            case ForgottenVotes(ballot=ballot, votes=votes):
                self._check_forgotten_votes(ballot, votes)
            case PreVote():
                allowed = self.configurations.may_be_candidate(sender)
                self._acceptor.pre_vote(sender, message, now, may_be_candidate=allowed)
            case Prepare(ballot=ballot):
                if ballot.node == sender and self.configurations.may_be_candidate(sender):
                    self._acceptor.prepare(sender, message, now)
            case PreVoteReply() | Promise() | Reject():
                self._roles.answered(sender, message, now)
            case Fetch(from_slot=from_slot):
                if from_slot <= self.chosen:
                    self._out.serve_fetch(sender, from_slot, self.chosen)
            case Learn():
                self._learner.learn(message)
                self._learner.note_chosen(sender, message.chosen)
                self._learner.note_truncated(sender, message.truncated)
            case (
                FetchSnapshot() | SnapshotPage() | FoundingState() | DigestRequest() | DigestReply() | DigestMismatch()
            ):
                pass  # the hosts process these messages
            case _:
                assert_never(message)
        if self._acceptor.promised != promised:
            self._roles.promise_raised(now)

    def _check_forgotten_votes(self, ballot: Ballot, votes: int) -> None:
        known = self._acceptor.votes(ballot)
        if known < votes:
            raise ForgottenVotesError(
                f"the storage of {self.node} has lost votes: the leader of ballot {ballot} counted {votes}, "
                f"the storage has {known}"
            )

    def _from_leader(self, sender: NodeId, message: Accept | Heartbeat | Chosen | ReleaseLease, now: Time) -> None:
        ballot = message.ballot
        match message:
            case Accept():
                if self._acceptor.accept(sender, message):
                    self._roles.follow(ballot, now)
                    self._learner.accepted()
                    self._learner.announce(ballot, message.chosen)
            case Heartbeat():
                if self._acceptor.heartbeat(sender, message, now):
                    self._roles.follow(ballot, now)
                    self._roles.election_timer.leader_seen(now + self.options.lease_for_acceptor)
                    self._learner.announce(ballot, message.chosen)
            case Chosen():
                self._learner.announce(ballot, message.upto)
            case ReleaseLease():
                self._acceptor.grant.release(ballot, now)
                self._roles.lease_released(message, now)
            case _:
                assert_never(message)

    def _send_read_requests(self, now: Time) -> None:
        ballot, leader = self.leader_ballot, self._roles.leader
        if ballot is None:
            return
        for token, quorum in self._reads.due(now):
            if leader is not None:
                leader.read(self.node, token, quorum=quorum)
            else:
                self._out.send(ballot.node, ReadIndex(token, quorum))
