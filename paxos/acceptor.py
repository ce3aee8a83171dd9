"""The acceptor: promises, accepted values and lease grants.

An acceptor never forgets a promise or an accepted value: P1a, "An acceptor can accept a proposal numbered n iff it has
not responded to a prepare request having a number greater than n" (Lamport, "Paxos Made Simple", section 2.2). One
promise covers all slots, as in Lamport, "The Part-Time Parliament", section 3.1. Each reply to a proposer leaves after
the records that the reply depends on are durable (rules 1 and 8).
"""

from paxos.errors import require
from paxos.lease import LeaseGrant
from paxos.log import Log
from paxos.messages import Accept, Accepted, Heartbeat, HeartbeatAck, Prepare, PreVote, PreVoteReply, Promise, Reject
from paxos.outbox import Outbox
from paxos.types import Ballot, NodeId, PValue, Slot, Time


class Acceptor:
    """The acceptor of one replica."""

    def __init__(self, promised: Ballot, log: Log, grant: LeaseGrant, out: Outbox) -> None:
        self.promised = promised
        """Highest ballot that this acceptor has promised or accepted; durable before any peer hears of it."""
        self.log = log
        self.grant = grant
        self._accepted: Slot = log.last_under(promised)
        """Highest slot accepted under the promised ballot; 0 for none."""
        self._out = out

    def pre_vote(self, sender: NodeId, message: PreVote, now: Time, *, may_be_candidate: bool) -> None:
        """Tell `sender` whether this acceptor would promise now; change nothing (rule 13).

        A sender that may not be a candidate gets a reply too. It may not know yet that it lost its vote, and the reply
        shows it how far its log lags.
        """
        willing = may_be_candidate and not self.grant.refuses(sender, now) and message.from_slot >= self.log.floor
        self._out.send(sender, PreVoteReply(message.nonce, willing, self.promised, self.log.chosen))

    def prepare(self, sender: NodeId, message: Prepare, now: Time) -> None:
        """Promise, or reject with the reason. A repeated Prepare, or a Prepare for the next page, is answered under the
        promise already made."""
        ballot, from_slot = message.ballot, message.from_slot
        if ballot < self.promised or (ballot > self.promised and self.grant.refuses(ballot.node, now)):
            self._reject(sender, ballot)
        elif from_slot < self.log.floor:
            self._reject(sender, ballot, self.log.floor)
        else:
            if ballot > self.promised:
                self._promise(ballot)
            accepted, next_slot = self.log.page(from_slot)
            self._out.vote(sender, Promise(ballot, from_slot, accepted, next_slot))

    def accept(self, sender: NodeId, message: Accept) -> bool:
        """Accept the value, unless a higher ballot is promised; raise the promise in the same write (rule 8).

        Returns True if the value is accepted. Raises InvariantError if another value was accepted under the same ballot
        (rule 7).
        """
        ballot, slot = message.ballot, message.slot
        if ballot < self.promised:
            self._reject(sender, ballot)
            return False
        if ballot > self.promised:
            self._promise(ballot)
        held = self.log.get(slot)
        if held is not None and held.ballot == ballot:
            require(held.value == message.value, f"two values for slot {slot} under ballot {ballot}")
        else:
            require(held is None or held.ballot < ballot, f"slot {slot} holds a value of a ballot above {ballot}")
            pvalue = PValue(slot, ballot, message.value)
            self.log.put(pvalue)
            self._out.accept(pvalue)
        self._accepted = max(self._accepted, slot)
        self._out.vote(sender, Accepted(ballot, slot))
        return True

    def adopt(self, pvalue: PValue) -> None:
        """Store a value that is known to be chosen as if it had been accepted under its ballot."""
        if pvalue.ballot > self.promised:
            self._promise(pvalue.ballot)
        self.log.put(pvalue)
        self._out.accept(pvalue)

    def heartbeat(self, sender: NodeId, message: Heartbeat, now: Time) -> bool:
        """Acknowledge a leader and grant it a lease, unless a higher ballot is promised.

        Returns True unless a higher ballot is promised, whether or not the lease is granted.
        """
        if message.ballot < self.promised:
            self._reject(sender, message.ballot)
            return False
        granted = self.grant.renew(message.ballot, now)
        votes = self.votes(message.ballot)
        self._out.send(sender, HeartbeatAck(message.ballot, message.nonce, granted, self.log.chosen, votes))
        return True

    def votes(self, ballot: Ballot) -> int:
        """Return the votes for `ballot` that this acceptor still knows of, encoded as in ForgottenVotes.

        A chosen slot counts as accepted, because its value can no longer change.
        """
        if ballot > self.promised:
            return 0
        return 1 + max(self.log.chosen, self._accepted if ballot == self.promised else self.log.last)

    def _promise(self, ballot: Ballot) -> None:
        require(ballot > self.promised, f"the promise would go down from {self.promised} to {ballot}")
        self.promised = ballot
        self._accepted = 0
        self._out.promise(ballot)

    def _reject(self, sender: NodeId, ballot: Ballot, floor: Slot = 0) -> None:
        self._out.send(sender, Reject(ballot, self.promised, floor))
