"""A candidate: a replica that tries to become leader. It asks for pre-votes, then runs phase 1."""

from paxos.acceptor import Acceptor
from paxos.context import RoleContext
from paxos.messages import Prepare, PreVote, PreVoteReply, Promise
from paxos.proposer import Phase1
from paxos.quorum import can_reach_quorum, is_quorum_of_each
from paxos.types import MS, Ballot, Count, NodeId, Time


class Candidate:
    """One attempt to become leader, from the first PreVote to the last Promise."""

    def __init__(self, context: RoleContext, nonce: Count, acceptor: Acceptor, timeout: Time) -> None:
        """Create a candidate that gives up a phase after `timeout`. `nonce` is unique among the attempts of this
        replica."""
        self._timeout = timeout
        self._node = context.node
        self._configurations = context.configurations
        self._from_slot = acceptor.log.chosen + 1
        self._deciding = context.configurations.since(self._from_slot)
        self._others = context.others
        self._options = context.options
        self._out = context.out
        self._nonce = nonce
        self._acceptor = acceptor
        self._willing = {context.node}
        self._unwilling: set[NodeId] = set()
        self.phase1: Phase1 | None = None
        """Phase 1 of this attempt; None while the candidate only asks for pre-votes (rule 13)."""
        self._resend_at: Time = 0
        self.expires: Time = 0

    def pre_vote(self, now: Time) -> None:
        """Ask every member whether it would promise."""
        self.expires = now + self._timeout
        self._send_pre_votes(now)

    def pre_vote_reply(self, sender: NodeId, message: PreVoteReply) -> None:
        """Count a reply to the PreVote of this attempt; ignore a reply to an earlier one."""
        if message.nonce == self._nonce and self._configurations.is_voter(sender):
            (self._willing if message.willing else self._unwilling).add(sender)

    def may_prepare(self) -> bool:
        """Return True once a majority would promise, until phase 1 begins."""
        return self.phase1 is None and is_quorum_of_each(self._willing, self._deciding)

    def prepare(self, number: int, now: Time) -> None:
        """Begin phase 1 of round `number`. The round is durable before any Prepare leaves (rule 2)."""
        ballot = Ballot(number, self._node)
        from_slot = self._acceptor.log.chosen + 1
        self._deciding = self._configurations.since(from_slot)
        self.phase1 = Phase1(ballot, from_slot, self._deciding)
        self.expires = now + self._timeout
        self._acceptor.prepare(self._node, Prepare(ballot, from_slot), now)
        self._send_prepares(self.phase1, self._others, now)

    def promised(self, sender: NodeId, message: Promise, now: Time) -> Phase1 | None:
        """Take one page of a promise and ask for the next page. Return phase 1 once a majority has promised."""
        phase1 = self.phase1
        if phase1 is None or message.ballot != phase1.ballot or not self._configurations.is_voter(sender):
            return None
        is_next = phase1.add_promise(sender, message)
        if phase1.has_quorum():
            return phase1
        if is_next and message.next_slot:  # copies of one page must not ask for the next page again and again
            self._send_prepares(phase1, [sender], now)
        return None

    def rejected(self, sender: NodeId, ballot: Ballot) -> None:
        """Count the refusal of an acceptor to promise `ballot`."""
        if self.phase1 is not None and ballot == self.phase1.ballot:
            self._unwilling.add(sender)

    def has_failed(self, now: Time) -> bool:
        """Return True when too many acceptors refused, or the phase timed out."""
        return now >= self.expires or not can_reach_quorum(self._unwilling, self._deciding)

    def tick(self, now: Time) -> None:
        """Send the request again to the members that have not answered. The own acceptor needs no second request: its
        answer cannot be lost and only waits for the disk."""
        if now < self._resend_at:
            return
        if self.phase1 is None:
            self._send_pre_votes(now)
        else:
            self._send_prepares(self.phase1, self._others, now)

    def next_deadline(self) -> Time:
        """Return the time at which to call `tick` and `has_failed`."""
        return min(self._resend_at, self.expires)

    def _send_pre_votes(self, now: Time) -> None:
        self._resend_at = now + self._options.retransmit_ms * MS
        for other in self._others:
            if other not in self._willing | self._unwilling:
                self._out.send(other, PreVote(self._nonce, self._from_slot))

    def _send_prepares(self, phase1: Phase1, acceptors: list[NodeId], now: Time) -> None:
        self._resend_at = now + self._options.retransmit_ms * MS
        for acceptor in acceptors:
            from_slot = phase1.awaiting.get(acceptor)
            if from_slot is None:
                continue
            prepare = Prepare(phase1.ballot, from_slot)
            if acceptor != self._node:
                self._out.vote(acceptor, prepare)
            elif from_slot >= self._acceptor.log.floor:
                self._acceptor.prepare(self._node, prepare, now)
