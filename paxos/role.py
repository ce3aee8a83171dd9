"""The role of a replica: follower, candidate or leader, and the changes between these roles.

Every replica is an acceptor and a learner in each of these roles.

    follower  -> candidate   the election timer is due, and the replica may lead
    candidate -> leader      a majority completed its promises
    candidate -> follower    too many acceptors refused, the attempt timed out, or the replica promised another ballot
    leader    -> follower    it made no progress (rule 19), it promised another ballot (rule 20), or it handed over
    leader    -> candidate   an acceptor promised a higher ballot while the lease still holds, or a new configuration
                             needs a new phase 1
"""

from enum import StrEnum
from random import Random
from typing import assert_never

from paxos.acceptor import Acceptor
from paxos.candidate import Candidate
from paxos.context import RoleContext
from paxos.election import ElectionTimer
from paxos.errors import require
from paxos.leader import Leader
from paxos.learner import Learner
from paxos.messages import PreVote, PreVoteReply, Promise, Reject, ReleaseLease
from paxos.proposer import Phase1
from paxos.reads import ReadIndexTracker
from paxos.types import Ballot, Count, NodeId, Slot, Time


class Role(StrEnum):
    """The role of a replica besides that of acceptor and learner."""

    LEADER = "leader"
    CANDIDATE = "candidate"
    FOLLOWER = "follower"


class RoleState:
    """The current role of one replica. At most one of `leader` and `candidate` is set."""

    def __init__(
        self,
        context: RoleContext,
        acceptor: Acceptor,
        learner: Learner,
        reads: ReadIndexTracker,
        *,
        rng: Random,
        first_due: Time,
    ) -> None:
        """Start as a follower without a leader. The first attempt to lead is due at `first_due`, plus a random
        delay."""
        self._context = context
        self._acceptor = acceptor
        self._learner = learner
        self._reads = reads
        self.leader: Leader | None = None
        self.candidate: Candidate | None = None
        self.followed: Ballot | None = None
        """Ballot of the leader that this replica follows, None if it leads or knows of no leader."""
        self.highest_round = acceptor.promised.round
        """Highest round that this replica has used or heard of (rule 2)."""
        self.election_timer = ElectionTimer(context.options, rng, first_due)
        self.attempts: Count = rng.getrandbits(48)
        """Number of the last attempt to lead, used as the nonce of its pre-votes. It starts at random, so that replies
        to attempts before a restart do not match."""
        self._retired = False

    @property
    def role(self) -> Role:
        """Leader from the end of phase 1 on; candidate from the first PreVote to the end of phase 1."""
        if self.leader is not None:
            return Role.LEADER
        return Role.CANDIDATE if self.candidate is not None else Role.FOLLOWER

    @property
    def leader_ballot(self) -> Ballot | None:
        """Ballot of the leader that this replica is or follows, None if no leader is known."""
        return self.leader.ballot if self.leader is not None else self.followed

    def next_deadline(self) -> Time:
        """Return the time at which to call `tick`."""
        if self.leader is not None:
            return self.leader.next_deadline()
        return self.candidate.next_deadline() if self.candidate is not None else self.election_timer.due

    def tick(self, now: Time) -> None:
        """Renew the lease, continue an attempt to lead, or begin one, if that is due."""
        if self.leader is not None:
            self.leader.tick(now)
            if self.leader.stalled(now):
                self.leader.release(choose_successor=False)
                self._step_down(now)
        elif self.candidate is not None:
            self.candidate.tick(now)
            self._continue_attempt(self.candidate, now)
        elif now >= self.election_timer.due:
            self._start_election(now)

    def retire(self, now: Time) -> None:
        """Hand leadership over to the voter with the longest log, and never try to lead again."""
        self._retired = True
        self.candidate = None
        self.step_aside(now)

    def step_aside(self, now: Time) -> None:
        """Hand leadership over to the voter with the longest log, if this replica leads."""
        if self.leader is not None:
            self.leader.release(choose_successor=True)
            self._step_down(now)

    def reconfigure(self, first: Slot, now: Time) -> None:
        """Take a new configuration into account. It decides the slots from `first` on (rule 27)."""
        self.abandon_attempt(now)
        if self.leader is None:
            return
        if not self._context.configurations.may_lead(first):
            self.leader.release(choose_successor=True)
            self._step_down(now)
        elif not self.leader.reconfigure():
            self._step_down(now)
            self.highest_round += 1
            self._new_candidate().prepare(self.highest_round, now)

    def abandon_attempt(self, now: Time) -> None:
        """Stop an attempt to lead, because its first slot or its majorities have changed, and schedule the next one."""
        if self.candidate is not None:
            self.candidate = None
            self.election_timer.back_off(now)

    def follow(self, ballot: Ballot, now: Time) -> None:
        """Follow the leader of `ballot`, unless this replica already follows that ballot or a higher one."""
        self.highest_round = max(self.highest_round, ballot.round)
        if self.followed is None or ballot > self.followed:
            self.followed = ballot
            self.candidate = self.leader = None
            self.election_timer.postpone(now)
            self._reads.leader_changed(now)

    def lease_released(self, message: ReleaseLease, now: Time) -> None:
        """Stop following a leader that gave up its lease; begin an attempt to lead if it named this replica."""
        if self.followed == message.ballot:
            self.followed = None
            if message.successor == self._context.node:
                self.election_timer.expire(now)
            else:
                self.election_timer.postpone(now)

    def promise_raised(self, now: Time) -> None:
        """Stop leading, and any attempt to lead, after a promise to another node (rule 20)."""
        promised = self._acceptor.promised
        self.highest_round = max(self.highest_round, promised.round)
        if promised.node != self._context.node and promised != self.followed:
            self.candidate = self.leader = self.followed = None
            self.election_timer.postpone(now)
            self._reads.leader_changed(now)

    def answered(self, sender: NodeId, message: PreVoteReply | Promise | Reject, now: Time) -> None:
        """Process an acceptor's answer to this replica as candidate or leader."""
        if isinstance(message, PreVoteReply):
            self.highest_round = max(self.highest_round, message.promised.round)
            self._learner.note_chosen(sender, message.chosen)
        elif isinstance(message, Reject):
            self.highest_round = max(self.highest_round, message.promised.round)
            self._learner.note_chosen(sender, message.floor - 1)
        if self.candidate is not None:
            self._answered_candidate(self.candidate, sender, message, now)
        elif self.leader is not None and isinstance(message, Promise):
            self.leader.promised(sender, message)
        elif self.leader is not None and isinstance(message, Reject) and message.ballot == self.leader.ballot:
            self._preempted(self.leader, message, now)

    def _answered_candidate(
        self, candidate: Candidate, sender: NodeId, message: PreVoteReply | Promise | Reject, now: Time
    ) -> None:
        match message:
            case PreVoteReply():
                candidate.pre_vote_reply(sender, message)
            case Promise():
                phase1 = candidate.promised(sender, message, now)
                if phase1 is not None:
                    self._lead(phase1, now)
                    return
            case Reject():
                candidate.rejected(sender, message.ballot)
            case _:
                assert_never(message)
        self._continue_attempt(candidate, now)

    def _start_election(self, now: Time) -> None:
        self.followed = None
        if self._retired or self._acceptor.grant.refuses(self._context.node, now):
            self.election_timer.back_off(now)
            return
        if not self._context.configurations.may_lead(self._learner.chosen + 1):
            self._probe_members()
            self.election_timer.back_off(now)
            return
        candidate = self._new_candidate()
        candidate.pre_vote(now)
        self._continue_attempt(candidate, now)

    def _probe_members(self) -> None:
        """Send a PreVote to every known member, without an attempt to lead.

        A replica that may not lead and has no contact with a leader learns from the replies how far its log lags. The
        slots that it then fetches may contain new members, among them the leader.
        """
        for other in self._context.others:
            self._context.out.send(other, PreVote(0, self._learner.chosen + 1))

    def _new_candidate(self) -> Candidate:
        self.attempts += 1
        self.candidate = Candidate(self._context, self.attempts, self._acceptor, self.election_timer.candidate_timeout)
        return self.candidate

    def _continue_attempt(self, candidate: Candidate, now: Time) -> None:
        if candidate.may_prepare():
            self.highest_round += 1
            candidate.prepare(self.highest_round, now)
        elif candidate.has_failed(now):
            self.candidate = None
            self.election_timer.back_off(now)

    def _lead(self, phase1: Phase1, now: Time) -> None:
        require(
            self._acceptor.promised == phase1.ballot,
            f"elected under ballot {phase1.ballot}, below the promise {self._acceptor.promised} of the own acceptor",
        )
        self.candidate = None
        self.leader = Leader(self._context, phase1, self._acceptor, self._learner, own_reads=self._reads, now=now)
        self._reads.leader_changed(now)
        self.leader.tick(now)

    def _preempted(self, leader: Leader, message: Reject, now: Time) -> None:
        """Step down after an acceptor promised a higher ballot.

        While the lease holds, no other node can lead, so this replica runs phase 1 again under a ballot above that
        promise. Otherwise another node may be about to lead, and this replica waits.
        """
        if message.promised <= leader.ballot:
            return
        lease_holds = leader.lease_holds(now)
        self._step_down(now)
        if lease_holds:
            self.highest_round += 1
            self._new_candidate().prepare(self.highest_round, now)

    def _step_down(self, now: Time) -> None:
        self.leader = None
        self._reads.leader_changed(now)
        self.election_timer.back_off(now)
