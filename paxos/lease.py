"""Leader leases: they allow a leader to answer reads without asking any other replica.

An acceptor that grants a lease promises to no other candidate until the grant ends. While a leader has grants of a
majority, no other leader can be elected, and no value is chosen without this leader.

Each side measures the lease on its own clock. The leader counts from the time before it sent the heartbeat and shortens
the lease by the clock drift bound. The acceptor counts from the time after it received the heartbeat and lengthens the
lease by the same bound. If the rates of the two clocks differ by at most the bound, the leader's lease ends first
(rule 15).

Sources: Gray and Cheriton, "Leases" (SOSP 1989); Moraru et al., "Paxos Quorum Leases" (SoCC 2014), section 2.
"""

from paxos.options import Options
from paxos.quorum import reached_by_quorum
from paxos.types import ZERO, Ballot, Configuration, Count, GrantTerms, NodeId, Time


class LeaseGrant:
    """The acceptor's side of a leader lease.

    The grant is in memory only. A restarted acceptor may have granted a lease just before it stopped, so it refuses
    every candidate for one whole lease, or for one of the terms `granted`, which an earlier process may have granted
    under other settings, if that is longer (rule 17).
    """

    def __init__(
        self,
        options: Options,
        now: Time,
        *,
        restarted: bool,
        granted: GrantTerms = GrantTerms(),  # noqa: B008 - frozen
    ) -> None:
        self._length = options.lease_for_acceptor
        self._ballot = ZERO
        self.until = now + max(self._length, granted.length) if restarted else now

    def refuses(self, node: NodeId, now: Time) -> bool:
        """Return True while a grant to another node, or the wait after a restart, forbids a promise to `node`."""
        return now < self.until and self._ballot.node != node

    def renew(self, ballot: Ballot, now: Time) -> bool:
        """Grant the leader of `ballot` a lease from `now` on. Return False if a grant to another node forbids it."""
        if self.refuses(ballot.node, now):
            return False
        held = self._ballot
        self._ballot = max(held, ballot) if held.node == ballot.node else ballot
        self.until = max(self.until, now + self._length)
        return True

    def release(self, ballot: Ballot, now: Time) -> None:
        """End the grant to `ballot`. A late message of another ballot has no effect (rule 16)."""
        if self._ballot == ballot:
            self.until = min(self.until, now)


class LeaderLease:
    """The leader's side of a leader lease: the heartbeat rounds that each voter answered, and the end of the lease."""

    def __init__(self, options: Options, configurations: list[Configuration]) -> None:
        """Start without grants. `configurations` are those that decide the slots not yet chosen: a new leader would
        need a majority of each, so the lease needs one too."""
        self._length = options.lease_for_leader
        self._deciding = configurations
        self._sent: dict[Count, Time] = {}
        self._granted: dict[NodeId, Time] = {}
        self._answered: dict[NodeId, Count] = {}
        self._nonce = 0
        self.until: Time = 0
        """End of the lease on the local clock; 0 without a majority of grants."""
        self.confirmed: Count = 0
        """Nonce of the newest heartbeat round that a majority has answered, directly or by answering a later round."""

    def begin_round(self, now: Time) -> Count:
        """Return a fresh nonce for heartbeats that leave at `now` (rule 16)."""
        self._nonce += 1
        self._sent[self._nonce] = now
        for nonce in [old for old, sent in self._sent.items() if sent + 2 * self._length < now]:
            del self._sent[nonce]
        return self._nonce

    def answer(self, sender: NodeId, nonce: Count, *, granted: bool) -> None:
        """Count the answer of a voter to the round of `nonce`. The lease is counted from the time at which that round
        left, however late the answer is (rule 16)."""
        sent = self._sent.get(nonce)
        if sent is None:
            return
        self._answered[sender] = max(nonce, self._answered.get(sender, 0))
        if granted:
            self._granted[sender] = max(sent, self._granted.get(sender, 0))
        self._count()

    def reconfigure(self, configurations: list[Configuration]) -> None:
        """Require a majority of each of these configurations from now on. Answers of members that are unverified in the
        newest one no longer count (rule 28)."""
        self._deciding = configurations
        unverified = configurations[-1].unverified
        self._answered = {voter: nonce for voter, nonce in self._answered.items() if voter not in unverified}
        self._granted = {voter: sent for voter, sent in self._granted.items() if voter not in unverified}
        self._count()

    @property
    def next_nonce(self) -> Count:
        """The nonce of the next round."""
        return self._nonce + 1

    def sent_at(self, nonce: Count) -> Time | None:
        """Return the time at which the round of `nonce` left, None if it left more than two leases ago."""
        return self._sent.get(nonce)

    def _count(self) -> None:
        self.confirmed = reached_by_quorum(self._answered, self._deciding) or 0
        since = reached_by_quorum(self._granted, self._deciding)
        self.until = since + self._length if since is not None else 0
