"""One replica: all roles of Multi-Paxos put together.

The host hands in what happened (`receive`, `propose`, `read`, `tick`), each with the time of its clock *after* it
happened, and takes out what shall happen (`take`). Nothing here waits, sends, stores or measures.

The reign of a leader, and why a read under its lease is current: a leader of ballot b holds grants of a majority, so no
candidate can gather promises of one, so nothing is chosen under a higher ballot; nothing is chosen under a lower one
either, because a majority promised b. What is chosen under b is counted here first. So the chosen prefix of this
replica contains every write that was ever acknowledged, as long as the lease holds.
"""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import assert_never

from paxos.acceptor import Acceptor
from paxos.candidate import Candidate
from paxos.configuration import ConfigurationHistory, ConfigurationVersion
from paxos.context import RoleContext
from paxos.election import ElectionTimer
from paxos.errors import ForgottenVotesError, require
from paxos.leader import Leader
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
from paxos.proposer import Phase1
from paxos.reads import ReadIndexTracker
from paxos.ready import Ready
from paxos.types import MS, Ballot, Configuration, Count, NodeId, PValue, Slot, Time


class Role(StrEnum):
    """What a replica does besides accepting and learning, which all do."""

    LEADER = "leader"
    CANDIDATE = "candidate"
    FOLLOWER = "follower"


class Replica:
    """A member of the cluster. It belongs to one thread."""

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
    ) -> None:
        """`versions`: the configurations that decide slots behind the chosen prefix, see ConfigurationHistory. The rest is what
        storage recovered: the promise, the chosen prefix, and in `tail` the accepted values from some slot at
        or below `chosen` + 1 to the end. `restarted`: it has run before and may have granted a lease a moment ago."""
        require(all(pvalue.ballot <= promised for pvalue in tail), "an accepted ballot is above the stored promise")
        self.node = node
        self.options = options
        self._out = Outbox()
        self.configurations = ConfigurationHistory(node, versions)
        self._context = RoleContext(node, self.configurations, options, self._out)
        self._log = Log(options, chosen, tail)
        self._acceptor = Acceptor(promised, self._log, LeaseGrant(options, now, restarted=restarted), self._out)
        self._learner = Learner(self._acceptor, self._context)
        first_due = self._acceptor.grant.until if restarted else now
        self._election_timer = ElectionTimer(options, rng, first_due)
        self._reads = ReadIndexTracker(options.retransmit_ms * MS)
        self._candidate: Candidate | None = None
        self._leader: Leader | None = None
        self._followed: Ballot | None = None
        self._highest_round = promised.round
        self._candidacies: Count = rng.getrandbits(48)  # no answer to an earlier life fits
        self._delivered: Slot = chosen
        """Slots up to here were given to the host to apply, and have been by the time of the next call."""
        self._retired = False

    # What is known

    @property
    def role(self) -> Role:
        """Leader from the end of phase 1 on; candidate while it asks or prepares."""
        if self._leader is not None:
            return Role.LEADER
        return Role.CANDIDATE if self._candidate is not None else Role.FOLLOWER

    @property
    def leader_ballot(self) -> Ballot | None:
        """The ballot of the leader this replica follows, or is; None while none is known."""
        return self._leader.ballot if self._leader is not None else self._followed

    @property
    def accepts_proposals(self) -> bool:
        """True when `propose` would take something now."""
        return self._leader.pipeline.has_room if self._leader is not None else self._followed is not None

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
        """True when there is a leader, and all that is known to be chosen anywhere is chosen here."""
        if self._leader is not None:
            return self._leader.established
        return self._followed is not None and not self._learner.behind

    @property
    def snapshot_source(self) -> NodeId | None:
        """The peer whose state this replica has to be given before it can go on: the log that it lacks is cut there."""
        return self._learner.snapshot_source if self._leader is None else None

    @property
    def queued(self) -> int:
        """Payloads that wait for a slot on the leader."""
        return self._leader.pipeline.queued if self._leader is not None else 0

    @property
    def lease_until(self) -> Time | None:
        """Until when the lease holds; None on a replica that does not lead."""
        return self._leader.lease.until if self._leader is not None else None

    def chosen_by(self, member: NodeId) -> Slot:
        """On the leader: the chosen prefix of `member`, as far as it has told; 0 elsewhere."""
        return self._leader.chosen_by(member) if self._leader is not None else 0

    def lease_holds(self, now: Time) -> bool:
        """True when what is applied here is current, without asking anybody (rule 18)."""
        return self._leader is not None and self._leader.lease_holds(now)

    def next_deadline(self) -> Time:
        """When `tick` wants to be called, at the latest."""
        if self._leader is not None:
            deadline = self._leader.next_deadline()
        elif self._candidate is not None:
            deadline = self._candidate.next_deadline()
        else:
            deadline = self._election_timer.due
        asking = self._reads.next_deadline() if self.leader_ballot is not None else None
        others = (asking, self._learner.next_deadline())
        return min([deadline, *(other for other in others if other is not None)])

    # What happens

    def propose(self, payloads: tuple[bytes, ...]) -> bool:
        """Have payloads ordered, here or by the leader that is known; False when none is, or too much waits here: then
        nothing was done. True promises nothing: the caller sees them applied, or proposes them again."""
        if self._leader is not None:
            return self._leader.pipeline.enqueue(payloads)
        if self._followed is not None:
            self._out.send(self._followed.node, Propose(payloads))
            return True
        return False

    def read(self, token: Count, now: Time, *, quorum: bool) -> None:
        """Find out how far to apply for a read that began before now; the answer is a ReadReady of `token`."""
        self._reads.begin(token, now, quorum=quorum)

    def forget_read(self, token: Count) -> None:
        """Nobody waits for `token` any more."""
        self._reads.forget(token)

    def tick(self, now: Time) -> None:
        """Time has passed."""
        if self._leader is not None:
            self._leader.tick(now)
            if self._leader.stalled(now):
                self._leader.release(choose_successor=False)
                self._step_down(now)
        elif self._candidate is not None:
            self._candidate.tick(now)
            self._continue_candidacy(self._candidate, now)
        elif now >= self._election_timer.due:
            self._start_election(now)

    def hand_over(self, now: Time) -> None:
        """Stop leading, in favour of the peer that is best prepared; and never run again. For a clean shutdown."""
        self._retired = True
        self._candidate = None
        if self._leader is not None:
            self._leader.release(choose_successor=True)
            self._step_down(now)

    def reconfigure(self, version: ConfigurationVersion, now: Time) -> None:
        """The host applied a configuration: it decides the slots from `version.first` on (rule 27)."""
        self.configurations.add(version)
        self._reconfigured(now)
        if self._leader is None:
            return
        if not self.configurations.may_lead(version.first):
            self._leader.release(choose_successor=True)
            self._step_down(now)
        elif not self._leader.reconfigure():
            self._step_down(now)
            self._highest_round += 1
            self._new_candidate().prepare(self._highest_round, now)

    def install_snapshot(self, slot: Slot, versions: Sequence[ConfigurationVersion], now: Time) -> None:
        """The host has the state as of `slot`, beyond the chosen prefix: everything up to it is chosen, and not needed.
        Whoever prepared from an earlier slot begins again."""
        require(self._leader is None, "a leader knows all that is chosen")
        self.configurations.replace(versions)
        self._delivered = slot
        self._learner.install_snapshot(slot)
        self._reconfigured(now)

    def forget_configurations(self) -> None:
        """The host lacks a state to go on from: until `jump` gives it one, and the members with it, nothing is learned.
        What is accepted is accepted as before."""
        require(self._leader is None and self._candidate is None, "whoever stands for election has a state")
        self.configurations.replace([ConfigurationVersion(1, Configuration(()))])

    def _reconfigured(self, now: Time) -> None:
        if self._candidate is not None:
            self._candidate = None
            self._election_timer.back_off(now)

    def take(self, now: Time) -> Ready:
        """What shall happen because of all that happened since the last call."""
        self._ask_for_reads(now)
        ended = self.configurations.forget_before(self.chosen + 1)
        if self._leader is not None:
            if ended:
                self._leader.configuration_ended()
            self._leader.flush(now, self._delivered)
        self._learner.fetch(now)
        for token, slot, way in self._reads.reached(self.chosen):
            self._out.answer_read(token, slot, way)
        self._delivered = self.chosen
        return self._out.take()

    def receive(self, sender: NodeId, message: AnyMessage, now: Time) -> None:  # noqa: C901, PLR0912 - a case a message
        """A message of a member; `sender` is what the link proved. What speaks for a ballot must come from its
        owner."""
        promised = self._acceptor.promised
        match message:
            case Accepted():
                if self._leader is not None:
                    self._leader.accepted(sender, message)
            case Accept(ballot=ballot) | Heartbeat(ballot=ballot) | Chosen(ballot=ballot) | ReleaseLease(ballot=ballot):
                if ballot.node == sender:
                    self._from_leader(sender, message, now)
            case HeartbeatAck():
                if self._leader is not None:
                    self._leader.acknowledged(sender, message, now)
            case Propose(payloads=payloads):
                if self._leader is not None:
                    self._leader.pipeline.enqueue(payloads)
            case ReadIndex(token=token, quorum=quorum):
                if self._leader is not None:
                    self._leader.read(sender, token, quorum=quorum)
            case ReadIndexReply(token=token, slot=slot):
                self._reads.index(token, slot)
            case ForgottenVotes(ballot=ballot, votes=votes):
                self._check_forgotten_votes(ballot, votes)
            case PreVote():
                self._acceptor.pre_vote(
                    sender, message, now, may_be_candidate=self.configurations.may_be_candidate(sender)
                )
            case Prepare(ballot=ballot):
                if ballot.node == sender and self.configurations.may_be_candidate(sender):
                    self._acceptor.prepare(sender, message, now)
            case PreVoteReply() | Promise() | Reject():
                self._on_answer(sender, message, now)
            case Fetch(from_slot=from_slot):
                if from_slot <= self.chosen:
                    self._out.serve_fetch(sender, from_slot, self.chosen)
            case Learn():
                self._learner.learn(message)
                self._learner.note_chosen(sender, message.chosen)
                self._learner.note_truncated(sender, message.truncated)
            case FetchSnapshot() | SnapshotPage() | DigestRequest() | DigestReply() | DigestMismatch():
                pass  # between the hosts
            case _:
                assert_never(message)
        if self._acceptor.promised != promised:
            self._on_promise_raised(now)

    def _check_forgotten_votes(self, ballot: Ballot, votes: int) -> None:
        known = self._acceptor.votes(ballot)
        if known < votes:
            raise ForgottenVotesError(
                f"the leader of ballot {ballot} has counted more votes of this acceptor than it knows of ({votes}, not "
                f"{known}): part of what it had stored is gone"
            )

    # As a follower

    def _from_leader(self, sender: NodeId, message: Accept | Heartbeat | Chosen | ReleaseLease, now: Time) -> None:
        ballot = message.ballot
        match message:
            case Accept():
                if self._acceptor.accept(sender, message):
                    self._follow(ballot, now)
                    self._learner.accepted()
                    self._learner.announce(ballot, message.chosen)
            case Heartbeat():
                if self._acceptor.heartbeat(sender, message, now):
                    self._follow(ballot, now)
                    self._election_timer.leader_seen(now + self.options.lease_for_acceptor)
                    self._learner.announce(ballot, message.chosen)
            case Chosen():
                self._learner.announce(ballot, message.upto)
            case ReleaseLease():
                self._on_lease_released(message, now)
            case _:
                assert_never(message)

    def _follow(self, ballot: Ballot, now: Time) -> None:
        self._highest_round = max(self._highest_round, ballot.round)
        if self._followed is None or ballot > self._followed:
            self._followed = ballot
            self._candidate = self._leader = None
            self._election_timer.postpone(now)
            self._reads.leader_changed(now)

    def _on_lease_released(self, message: ReleaseLease, now: Time) -> None:
        self._acceptor.grant.release(message.ballot, now)
        if self._followed == message.ballot:
            self._followed = None
            if message.successor == self.node:
                self._election_timer.expire(now)
            else:
                self._election_timer.postpone(now)

    def _on_promise_raised(self, now: Time) -> None:
        """The own promise rose. Whoever promised to another leads and runs no more (rule 20)."""
        promised = self._acceptor.promised
        self._highest_round = max(self._highest_round, promised.round)
        if promised.node != self.node and promised != self._followed:
            self._candidate = self._leader = self._followed = None
            self._election_timer.postpone(now)
            self._reads.leader_changed(now)

    # As a candidate

    def _start_election(self, now: Time) -> None:
        self._followed = None
        if self._retired or self._acceptor.grant.refuses(self.node, now):
            self._election_timer.back_off(now)
            return
        if not self.configurations.may_lead(self.chosen + 1):
            self._probe_members()
            self._election_timer.back_off(now)
            return
        candidate = self._new_candidate()
        candidate.pre_vote(now)
        self._continue_candidacy(candidate, now)

    def _probe_members(self) -> None:
        """Whoever may not lead and hears no leader asks those that it knows: the answers say how far they are, and from
        what they are asked for then it learns who leads, perhaps somebody that joined while it was away."""
        for other in self.configurations.others:
            self._out.send(other, PreVote(0, self.chosen + 1))

    def _new_candidate(self) -> Candidate:
        self._candidacies += 1
        self._candidate = Candidate(
            self._context, self._candidacies, self._acceptor, self._election_timer.candidate_timeout
        )
        return self._candidate

    def _on_answer(self, sender: NodeId, message: PreVoteReply | Promise | Reject, now: Time) -> None:
        if isinstance(message, PreVoteReply):
            self._highest_round = max(self._highest_round, message.promised.round)
            self._learner.note_chosen(sender, message.chosen)
        elif isinstance(message, Reject):
            self._highest_round = max(self._highest_round, message.promised.round)
            self._learner.note_chosen(sender, message.floor - 1)
        if self._candidate is not None:
            self._on_candidate_answer(self._candidate, sender, message, now)
        elif self._leader is not None and isinstance(message, Promise):
            self._leader.promised(sender, message)
        elif self._leader is not None and isinstance(message, Reject) and message.ballot == self._leader.ballot:
            self._on_preempted(self._leader, message, now)

    def _on_candidate_answer(
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
        self._continue_candidacy(candidate, now)

    def _continue_candidacy(self, candidate: Candidate, now: Time) -> None:
        if candidate.may_prepare():
            self._highest_round += 1
            candidate.prepare(self._highest_round, now)
        elif candidate.has_failed(now):
            self._candidate = None
            self._election_timer.back_off(now)

    # As a leader

    def _lead(self, phase1: Phase1, now: Time) -> None:
        require(self._acceptor.promised == phase1.ballot, "elected under a ballot that the own acceptor left behind")
        self._candidate = None
        self._leader = Leader(self._context, phase1, self._acceptor, self._learner, own_reads=self._reads, now=now)
        self._reads.leader_changed(now)
        self._leader.tick(now)

    def _on_preempted(self, leader: Leader, message: Reject, now: Time) -> None:
        """A voter promised a higher ballot. While the lease holds nobody else can lead, so the voter is won back under
        a ballot above its promise; otherwise somebody else is on the way."""
        if message.promised <= leader.ballot:
            return
        lease_holds = leader.lease_holds(now)
        self._step_down(now)
        if lease_holds:
            self._highest_round += 1
            self._new_candidate().prepare(self._highest_round, now)

    def _step_down(self, now: Time) -> None:
        self._leader = None
        self._reads.leader_changed(now)
        self._election_timer.back_off(now)

    # For readers

    def _ask_for_reads(self, now: Time) -> None:
        leading = self.leader_ballot
        if leading is None:
            return
        for token, quorum in self._reads.due(now):
            if self._leader is not None:
                self._leader.read(self.node, token, quorum=quorum)
            else:
                self._out.send(leading.node, ReadIndex(token, quorum))
