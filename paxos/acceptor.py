"""The acceptor: promises, accepts, grants. It never forgets a promise or an accepted value.

P1a: "An acceptor can accept a proposal numbered n iff it has not responded to a prepare request having a number greater
than n" (Lamport, "Paxos Made Simple", section 2.2). Here one promise covers all slots, as in "The Part-Time
Parliament", section 3.1. Everything an acceptor says to a proposer leaves after the records that it rests on (rules 1
and 8).
"""

from paxos.errors import require
from paxos.lease import LeaseGrant
from paxos.log import Log
from paxos.messages import Accept, Accepted, Heartbeat, HeartbeatAck, Prepare, PreVote, PreVoteReply, Promise, Reject
from paxos.outbox import Outbox
from paxos.types import Ballot, NodeId, PValue, Slot, Time


class Acceptor:
    """One replica's vote. `promised`: the highest ballot promised or accepted, durable before anybody hears of it."""

    def __init__(self, promised: Ballot, log: Log, grant: LeaseGrant, out: Outbox) -> None:
        self.promised = promised
        self.log = log
        self.grant = grant
        self._accepted: Slot = log.last_under(promised)
        """Highest slot that was accepted under the promised ballot."""
        self._out = out

    def pre_vote(self, sender: NodeId, message: PreVote, now: Time, *, may_be_candidate: bool) -> None:
        """Tell whether a Prepare would be answered with a Promise now. Changes nothing (rule 13).

        Whoever may not stand is answered, too: it may know neither the leader nor that it was replaced, and this is how
        it hears that it lags."""
        willing = may_be_candidate and not self.grant.refuses(sender, now) and message.from_slot >= self.log.floor
        self._out.send(sender, PreVoteReply(message.nonce, willing, self.promised, self.log.chosen))

    def prepare(self, sender: NodeId, message: Prepare, now: Time) -> None:
        """Promise, or say why not. A repeated Prepare, or one for a further page, rests on the promise already made."""
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
        """Accept, unless a higher ballot was promised; the promise rises to the ballot in the same write (rule 8)."""
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
            require(held is None or held.ballot < ballot, f"slot {slot} was accepted above the promise {ballot}")
            pvalue = PValue(slot, ballot, message.value)
            self.log.put(pvalue)
            self._out.accept(pvalue)
        self._accepted = max(self._accepted, slot)
        self._out.vote(sender, Accepted(ballot, slot))
        return True

    def adopt(self, pvalue: PValue) -> None:
        """Hold a value that is known to be chosen, as if it had been accepted under the ballot that comes with it."""
        if pvalue.ballot > self.promised:
            self._promise(pvalue.ballot)
        self.log.put(pvalue)
        self._out.accept(pvalue)

    def heartbeat(self, sender: NodeId, message: Heartbeat, now: Time) -> bool:
        """Grant a lease to a leader whom no higher promise outbids; True when it leads as far as this acceptor
        knows."""
        if message.ballot < self.promised:
            self._reject(sender, message.ballot)
            return False
        granted = self.grant.renew(message.ballot, now)
        votes = self.votes(message.ballot)
        self._out.send(sender, HeartbeatAck(message.ballot, message.nonce, granted, self.log.chosen, votes))
        return True

    def votes(self, ballot: Ballot) -> int:
        """What is known here of the own votes for `ballot`, see Forgotten. A slot that is chosen counts as accepted:
        its value cannot be lost to others by what this acceptor says."""
        if ballot > self.promised:
            return 0
        return 1 + max(self.log.chosen, self._accepted if ballot == self.promised else self.log.last)

    def _promise(self, ballot: Ballot) -> None:
        require(ballot > self.promised, "a promise never goes down")
        self.promised = ballot
        self._accepted = 0
        self._out.promise(ballot)

    def _reject(self, sender: NodeId, ballot: Ballot, floor: Slot = 0) -> None:
        self._out.send(sender, Reject(ballot, self.promised, floor))
