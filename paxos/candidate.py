"""A replica that wants to lead: it asks whether it could, then runs phase 1."""

from paxos.acceptor import Acceptor
from paxos.member import Member
from paxos.messages import Prepare, PreVote, PreVoteReply, Promise
from paxos.proposer import Campaign
from paxos.quorum import can_reach_quorum, is_quorum_of_each
from paxos.types import MS, Ballot, Count, NodeId, Time


class Candidate:
    """One candidacy, from the first question to the last promise. `campaign` is None while it only asks (rule 13)."""

    def __init__(self, member: Member, nonce: Count, acceptor: Acceptor, patience: Time) -> None:
        self._patience = patience
        self._node = member.node
        self._configurations = member.configurations
        self._from_slot = acceptor.log.chosen + 1
        self._deciding = member.configurations.since(self._from_slot)
        self._others = member.others
        self._options = member.options
        self._out = member.out
        self._nonce = nonce
        self._acceptor = acceptor
        self._willing = {member.node}
        self._unwilling: set[NodeId] = set()
        self.campaign: Campaign | None = None
        self._resend_at: Time = 0
        self.expires: Time = 0

    def pre_vote(self, now: Time) -> None:
        """Ask everybody whether they would promise."""
        self.expires = now + self._patience
        self._question(now)

    def pre_voted(self, sender: NodeId, message: PreVoteReply) -> None:
        """Count one answer to the question of this candidacy."""
        if message.nonce == self._nonce and self._configurations.is_voter(sender):
            (self._willing if message.willing else self._unwilling).add(sender)

    def may_prepare(self) -> bool:
        """True when a majority would promise and nothing was prepared yet."""
        return self.campaign is None and is_quorum_of_each(self._willing, self._deciding)

    def prepare(self, number: int, now: Time) -> None:
        """Begin phase 1 of round `number`, which is durable before any Prepare leaves (rule 2)."""
        ballot = Ballot(number, self._node)
        from_slot = self._acceptor.log.chosen + 1
        self._deciding = self._configurations.since(from_slot)
        self.campaign = Campaign(ballot, from_slot, self._deciding)
        self.expires = now + self._patience
        self._acceptor.prepare(self._node, Prepare(ballot, from_slot), now)
        self._ask(self.campaign, self._others, now)

    def promised(self, sender: NodeId, message: Promise, now: Time) -> Campaign | None:
        """Take a page of a promise and ask for the next one; the campaign, once it is won."""
        campaign = self.campaign
        if campaign is None or message.ballot != campaign.ballot or not self._configurations.is_voter(sender):
            return None
        campaign.promise(sender, message)
        if campaign.elected():
            return campaign
        if message.next_slot:
            self._ask(campaign, [sender], now)
        return None

    def refused(self, sender: NodeId, ballot: Ballot) -> None:
        """An acceptor will not promise to `ballot`."""
        if self.campaign is not None and ballot == self.campaign.ballot:
            self._unwilling.add(sender)

    def hopeless(self, now: Time) -> bool:
        """True when too many refused, or when it took too long."""
        return now >= self.expires or not can_reach_quorum(self._unwilling, self._deciding)

    def tick(self, now: Time) -> None:
        """Ask again those that have not answered. The own answer is never lost, it only waits for the disk."""
        if now < self._resend_at:
            return
        if self.campaign is None:
            self._question(now)
        else:
            self._ask(self.campaign, self._others, now)

    def next_deadline(self) -> Time:
        """When `tick` or `hopeless` has something to say."""
        return min(self._resend_at, self.expires)

    def _question(self, now: Time) -> None:
        self._resend_at = now + self._options.retransmit_ms * MS
        for other in self._others:
            if other not in self._willing | self._unwilling:
                self._out.send(other, PreVote(self._nonce, self._from_slot))

    def _ask(self, campaign: Campaign, acceptors: list[NodeId], now: Time) -> None:
        self._resend_at = now + self._options.retransmit_ms * MS
        for acceptor in acceptors:
            from_slot = campaign.owed.get(acceptor)
            if from_slot is None:
                continue
            prepare = Prepare(campaign.ballot, from_slot)
            if acceptor != self._node:
                self._out.vote(acceptor, prepare)
            elif from_slot >= self._acceptor.log.floor:
                self._acceptor.prepare(self._node, prepare, now)
