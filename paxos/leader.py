"""The leader: it renews its lease, orders payloads in slots, and hands out read indexes.

Reads follow Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.4: the leader notes its chosen prefix,
the read index, and confirms that it still leads, either by its lease or by a round of heartbeats that a majority
answers (rule 18).
"""

from collections import deque

import msgspec

from paxos.acceptor import Acceptor
from paxos.context import RoleContext
from paxos.errors import require
from paxos.learner import Learner
from paxos.lease import LeaderLease
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Chosen,
    ForgottenVotes,
    Heartbeat,
    HeartbeatAck,
    Promise,
    ReadIndexReply,
    ReleaseLease,
)
from paxos.proposer import Phase1, Pipeline
from paxos.reads import ReadIndexTracker
from paxos.types import MS, Count, NodeId, Slot, Time

VOTE_CHECK_ROUNDS = 16
"""Number of heartbeat rounds for which the leader remembers its vote counts, to check late answers against them."""


class PendingRead(msgspec.Struct):
    """A read index request that waits until a majority confirms the leader."""

    origin: NodeId
    token: Count
    quorum: bool
    """True if the lease is not trusted for this read."""
    nonce: Count = 0
    """Nonce of the heartbeat round that confirms the read; 0 until that round begins."""
    slot: Slot = 0
    """Read index, valid once `nonce` is set."""


class Leader:
    """One leadership under one ballot, from the end of phase 1 until the replica steps down."""

    def __init__(
        self,
        context: RoleContext,
        phase1: Phase1,
        acceptor: Acceptor,
        learner: Learner,
        *,
        own_reads: ReadIndexTracker,
        now: Time,
    ) -> None:
        """Begin to lead: a majority has completed its promises in `phase1`. Read indexes of this replica's own reads go
        to `own_reads`."""
        self._node = context.node
        self._configurations = context.configurations
        self._options = context.options
        self._out = context.out
        self.ballot = phase1.ballot
        self._acceptor = acceptor
        self._learner = learner
        self._own_reads = own_reads
        self._last_ack_at: dict[NodeId, Time] = {}
        self._chosen_by: dict[NodeId, Slot] = {}
        self._votes: dict[NodeId, int] = dict.fromkeys(phase1.promised, 1)
        """Votes counted for each voter, encoded as in ForgottenVotes."""
        self._votes_at_round: dict[Count, dict[NodeId, int]] = {}
        """Copies of `_votes`, taken when the heartbeat round of each nonce began."""
        self._own_votes: deque[tuple[Slot, Time]] = deque()
        """Slots for which the own vote is not durable yet, each with the time of its proposal."""
        self._reads: dict[tuple[NodeId, Count], PendingRead] = {}
        self._announced: Slot = 0
        self._confirmed_at = now
        self._phase1 = phase1
        self.pipeline = Pipeline(phase1.from_slot, phase1.recovered(), context.configurations, context.options)
        self.pipeline.fill(context.configurations.pending_from)
        self.lease = LeaderLease(context.options, context.configurations.since(learner.chosen + 1))
        self._heartbeat_due = now
        self._tick_due = now

    @property
    def established(self) -> bool:
        """True once all recovered values and one no-op of this ballot are chosen. From then on the chosen prefix is at
        least as long as that of any earlier leader (rule 10)."""
        return self._learner.chosen >= self.pipeline.own_noop

    def lease_holds(self, now: Time) -> bool:
        """Return True if the leader may answer a linearizable read from its state without any message (rule 18)."""
        return now < self.lease.until and self.established

    def configuration_ended(self) -> None:
        """Drop the configurations whose slots are all chosen: the lease no longer needs a majority of them."""
        self.lease.reconfigure(self._configurations.since(self._learner.chosen + 1))

    def reconfigure(self) -> bool:
        """Take a newly chosen configuration into account.

        Returns False if the members that promised in phase 1 are no majority of the new configuration, so that its
        slots need a new phase 1.
        """
        self.lease.reconfigure(self._configurations.since(self._learner.chosen + 1))
        for voter in self._configurations.newest.unverified:
            self._votes.pop(voter, None)
        self._votes_at_round.clear()
        self.pipeline.fill(self._configurations.pending_from)
        return self._phase1.covers(self._configurations.newest)

    def promised(self, sender: NodeId, message: Promise) -> None:
        """Process a promise that arrives after the election."""
        if message.ballot == self.ballot and self._configurations.is_voter(sender):
            self._phase1.add_late_promise(sender, message, self.pipeline.next_slot)

    def accepted(self, sender: NodeId, message: Accepted) -> None:
        """Count a vote, if it is for this ballot (rule 9)."""
        if message.ballot != self.ballot or not self._configurations.is_voter(sender):
            return
        if sender == self._node:
            while self._own_votes and self._own_votes[0][0] <= message.slot:
                self._own_votes.popleft()
        self._votes[sender] = max(self._votes.get(sender, 0), 1 + message.slot)
        if self.pipeline.accepted(sender, message.slot):
            self._learner.decide(message.slot)

    def acknowledged(self, sender: NodeId, message: HeartbeatAck, now: Time) -> None:
        """Process an answer to a heartbeat, which may extend the lease and confirm reads. Answer ForgottenVotes if the
        sender knows of fewer votes than were counted before the heartbeat left (rule 5)."""
        if message.ballot != self.ballot:
            return
        self._last_ack_at[sender] = now
        self._chosen_by[sender] = message.chosen
        counted = self._votes_at_round.get(message.nonce, {}).get(sender, 0)
        if message.votes < counted:
            self._out.send(sender, ForgottenVotes(self.ballot, counted))
            return
        if self._configurations.is_voter(sender):
            self._answer_round(sender, message.nonce, message.granted)

    def chosen_by(self, member: NodeId) -> Slot:
        """Return the chosen prefix that `member` reported last, 0 if it reported none."""
        return self._chosen_by.get(member, 0)

    def read(self, origin: NodeId, token: Count, *, quorum: bool) -> None:
        """Add a read index request of `origin`. It is answered by `flush` or, later, by `acknowledged`."""
        self._reads.setdefault((origin, token), PendingRead(origin, token, quorum))

    def flush(self, now: Time, applied: Slot) -> None:
        """Propose queued payloads, answer reads or start to confirm them, and announce the chosen prefix if no other
        message has carried it. The host has applied all slots up to `applied`."""
        for slot, value in self.pipeline.propose(now, applied):
            accept = Accept(self.ballot, slot, value, self._learner.chosen)
            self._broadcast(accept)
            self._own_votes.append((slot, now))
            require(self._acceptor.accept(self._node, accept), "the leader's own acceptor promised another ballot")
            self._announced = accept.chosen
        self._flush_reads(now)
        if self._learner.chosen > self._announced:
            self._announced = self._learner.chosen
            self._broadcast(Chosen(self.ballot, self._announced))

    def tick(self, now: Time) -> None:
        """Renew the lease when it is due, and send unanswered Accepts again."""
        self._tick_due = now + self._options.heartbeat_ms * MS
        if now >= self._heartbeat_due:
            self._heartbeat(now)
        for slot, value, missing in self.pipeline.overdue(now):
            accept = Accept(self.ballot, slot, value, self._learner.chosen)
            for voter in missing:
                if voter != self._node:
                    self._out.send(voter, accept)

    def stalled(self, now: Time) -> bool:
        """Return True if for `stall_ms` no majority answered, the oldest proposal was not chosen, or an own vote did
        not become durable (rule 19)."""
        oldest = self.pipeline.oldest()
        since = [self._confirmed_at]
        if oldest is not None:
            since.append(oldest)
        if self._own_votes:
            since.append(self._own_votes[0][1])
        return min(since) + self._options.stall_ms * MS < now

    def next_deadline(self) -> Time:
        """Return the time at which to call `tick` and `stalled`, at most one heartbeat interval after the last call:
        each read that sends a heartbeat postpones the next heartbeat, and must not postpone everything else."""
        resend = self.pipeline.next_resend()
        due = min(self._heartbeat_due, self._tick_due)
        return due if resend is None else min(due, resend)

    def release(self, *, choose_successor: bool) -> None:
        """Give up the lease. With `choose_successor`, name as successor the voter with the longest chosen prefix among
        those that may lead and answered the last few heartbeats."""
        successor = ""
        if choose_successor and self._last_ack_at:
            newest = max(self._last_ack_at.values()) - 3 * self._options.heartbeat_ms * MS
            configuration = self._configurations.newest
            alive = [
                node
                for node in configuration.voters
                if node not in configuration.witnesses
                and node != self._node
                and self._last_ack_at.get(node, newest - 1) >= newest
            ]
            successor = max(alive, key=lambda node: (self._chosen_by[node], node), default="")
        self._broadcast(ReleaseLease(self.ballot, successor))
        self._acceptor.grant.release(self.ballot, 0)

    def _heartbeat(self, now: Time) -> Count:
        nonce = self.lease.begin_round(now)
        self._votes_at_round[nonce] = dict(self._votes)
        self._votes_at_round.pop(nonce - VOTE_CHECK_ROUNDS, None)
        self._heartbeat_due = now + self._options.heartbeat_ms * MS
        self._announced = self._learner.chosen
        self._broadcast(Heartbeat(self.ballot, nonce, self._announced))
        granted = self._acceptor.grant.renew(self.ballot, now)
        self._answer_round(self._node, nonce, granted)
        return nonce

    def _answer_round(self, sender: NodeId, nonce: Count, granted: bool) -> None:
        before = self.lease.confirmed
        self.lease.answer(sender, nonce, granted=granted)
        confirmed = self.lease.confirmed
        if confirmed == before:
            return
        self._confirmed_at = self.lease.sent_at(confirmed) or self._confirmed_at
        for read in [read for read in self._reads.values() if 0 < read.nonce <= confirmed]:
            self._answer(read, read.slot, "quorum")

    def _flush_reads(self, now: Time) -> None:
        fresh = [read for read in self._reads.values() if not read.nonce]
        if not fresh or not self.established:
            return
        slot, nonce = self._learner.chosen, self.lease.next_nonce
        by_lease = self.lease_holds(now)
        for read in fresh:
            if by_lease and not read.quorum:
                self._answer(read, slot, "lease")
            else:
                read.nonce, read.slot = nonce, slot
        if any(read.nonce for read in fresh):
            self._heartbeat(now)

    def _answer(self, read: PendingRead, slot: Slot, confirmed_by: str) -> None:
        del self._reads[read.origin, read.token]
        if read.origin == self._node:
            self._own_reads.index(read.token, slot, confirmed_by)
        else:
            self._out.send(read.origin, ReadIndexReply(read.token, slot))

    def _broadcast(self, message: AnyMessage) -> None:
        for other in self._configurations.others:
            self._out.send(other, message)
