"""Leases: why a leader may answer reads alone, and how long.

An acceptor that grants promises to no other candidate until the grant ends. A leader whose grants come from a majority
therefore knows that no other leader can be elected, and that nothing is chosen without it. Both sides measure an
interval on their own clock; clocks whose rates differ by at most the drift bound agree on the order of the two ends,
because the leader counts from before it asked, shortened, and the acceptor from after it heard, lengthened (rule 15).
Gray and Cheriton, "Leases" (SOSP 1989); Moraru et al., "Paxos Quorum Leases" (SoCC 2014), section 2.
"""

from paxos.options import Options
from paxos.quorum import reached_by_quorum
from paxos.types import ZERO, Ballot, Configuration, Count, NodeId, Time


class LeaseGrant:
    """The acceptor's side. Kept in memory only: whoever restarts may have granted a moment ago, and so refuses
    everybody for one whole lease (rule 17)."""

    def __init__(self, options: Options, now: Time, *, restarted: bool) -> None:
        self._length = options.lease_for_acceptor
        self._ballot = ZERO
        self.until = now + self._length if restarted else now

    def refuses(self, node: NodeId, now: Time) -> bool:
        """True while a grant to somebody else, or the wait after a restart, stands against `node`."""
        return now < self.until and self._ballot.node != node

    def renew(self, ballot: Ballot, now: Time) -> bool:
        """Grant one lease from `now` on to the leader of `ballot`; False when that is refused."""
        if self.refuses(ballot.node, now):
            return False
        held = self._ballot
        self._ballot = max(held, ballot) if held.node == ballot.node else ballot
        self.until = max(self.until, now + self._length)
        return True

    def release(self, ballot: Ballot, now: Time) -> None:
        """The holder gave its lease up. Only the ballot that holds it can: a late copy ends no later grant."""
        if self._ballot == ballot:
            self.until = min(self.until, now)


class LeaderLease:
    """The leader's side: which round of heartbeats each voter answered last, and what follows from it."""

    def __init__(self, options: Options, configurations: list[Configuration]) -> None:
        """`configurations`: each that may decide a slot which is not chosen. Whoever is to be elected needs them all."""
        self._length = options.lease_for_leader
        self._deciding = configurations
        self._sent: dict[Count, Time] = {}
        self._granted: dict[NodeId, Time] = {}
        self._answered: dict[NodeId, Count] = {}
        self._nonce = 0
        self.until: Time = 0
        """The lease holds before this reading of the clock."""
        self.confirmed: Count = 0
        """A majority answered the round of this nonce, or a later one."""

    def begin_round(self, now: Time) -> Count:
        """A fresh nonce for heartbeats that leave at `now` (rule 16)."""
        self._nonce += 1
        self._sent[self._nonce] = now
        for nonce in [old for old, sent in self._sent.items() if sent + 2 * self._length < now]:
            del self._sent[nonce]
        return self._nonce

    def answer(self, sender: NodeId, nonce: Count, *, granted: bool) -> None:
        """A voter answered the round of `nonce`. A late answer extends the lease only from its own send time."""
        sent = self._sent.get(nonce)
        if sent is None:
            return
        self._answered[sender] = max(nonce, self._answered.get(sender, 0))
        if granted:
            self._granted[sender] = max(sent, self._granted.get(sender, 0))
        self._count()

    def reconfigure(self, configurations: list[Configuration]) -> None:
        """From now on it takes a majority of each of these. Whoever is silent in the newest is not heard any more."""
        self._deciding = configurations
        unverified = configurations[-1].unverified
        self._answered = {voter: nonce for voter, nonce in self._answered.items() if voter not in unverified}
        self._granted = {voter: sent for voter, sent in self._granted.items() if voter not in unverified}
        self._count()

    @property
    def next_nonce(self) -> Count:
        """The nonce of the round that begins next."""
        return self._nonce + 1

    def sent_at(self, nonce: Count) -> Time | None:
        """When the round of `nonce` left, unless that is long ago."""
        return self._sent.get(nonce)

    def _count(self) -> None:
        self.confirmed = reached_by_quorum(self._answered, self._deciding) or 0
        since = reached_by_quorum(self._granted, self._deciding)
        self.until = since + self._length if since is not None else 0
