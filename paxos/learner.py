"""The learner: it finds out which slots are chosen, in order, and fetches the slots that this replica missed.

"To learn that a value has been chosen, a learner must find out that a proposal has been accepted by a majority of
acceptors" (Lamport, "Paxos Made Simple", section 2.3). The leader is the distinguished learner of that section: it
counts votes and announces a chosen prefix together with its ballot. A replica that accepted a slot under this ballot
holds the chosen value of the slot; every other replica fetches the value (rule 12).
"""

from paxos.acceptor import Acceptor
from paxos.context import RoleContext
from paxos.errors import require
from paxos.messages import Fetch, Learn
from paxos.types import MS, ZERO, Ballot, NodeId, PValue, Slot, Time


class Learner:
    """The learner of one replica. It finds out which slots are chosen, in order and without a gap.

    The chosen prefix of the log grows only when the host takes the next slot, so that a host that is still busy with
    one slot is not given more. The prefix that is known to be chosen may be longer.
    """

    def __init__(self, acceptor: Acceptor, context: RoleContext) -> None:
        self._acceptor = acceptor
        self._log = acceptor.log
        self._out = context.out
        self._configurations = context.configurations
        self._retry = context.options.retransmit_ms * MS
        self._known: Slot = self._log.chosen
        """Slot up to which all values in the log are known to be chosen; at least the chosen prefix."""
        self._decided: set[Slot] = set()
        """Slots above `_known` whose value in the log is known to be chosen."""
        self._announced = (ZERO, 0)
        """Highest announcement of a leader: its ballot and the chosen prefix."""
        self._fetch_source: NodeId = ""
        self._known_chosen: Slot = 0
        self._fetching: tuple[Slot, Time] | None = None
        """First slot of the Fetch under way, and the time at which it is repeated."""
        self._unanswered = 0
        self._truncated: Slot = 0
        self._truncated_by: NodeId = ""

    @property
    def chosen(self) -> Slot:
        """The chosen prefix: the last slot that the host has taken."""
        return self._log.chosen

    @property
    def behind(self) -> bool:
        """True while a peer is known to have a longer chosen prefix."""
        return self._known_chosen > self._known

    @property
    def snapshot_source(self) -> NodeId | None:
        """A peer that has truncated the next slot from its log, so that its snapshot is needed (rule 11); otherwise
        None."""
        return self._truncated_by if self._truncated > self._known else None

    def decide(self, slot: Slot) -> None:
        """Mark the value that the own acceptor holds for `slot` as chosen: this replica leads and counted a
        majority."""
        if slot > self._known:
            self._decided.add(slot)
            self._advance()

    def next_chosen(self) -> tuple[Slot, bytes] | None:
        """Advance the chosen prefix by one slot and return the slot and its value, or None if the next slot is not
        known to be chosen."""
        if self._log.chosen >= self._known or not self._configurations.newest.members:
            return None
        pvalue = self._log.choose_next()
        self._out.choose(pvalue.slot, pvalue.value)
        return pvalue.slot, pvalue.value

    def announce(self, ballot: Ballot, upto: Slot) -> None:
        """Process the announcement of the leader of `ballot` that all slots up to `upto` are chosen."""
        self._announced = max(self._announced, (ballot, upto))
        self._advance()
        self.note_chosen(ballot.node, upto)

    def note_chosen(self, source: NodeId, chosen: Slot) -> None:
        """Remember that `source` has the chosen prefix `chosen`, so that missing slots can be fetched from it."""
        if chosen >= self._known_chosen:
            self._fetch_source, self._known_chosen = source, chosen

    def accepted(self) -> None:
        """Check a value that was just accepted against an earlier announcement."""
        self._advance()

    def learn(self, message: Learn) -> None:
        """Store chosen values from a peer.

        Each value is stored as accepted under the ballot with which the peer holds it. As with every accepted value,
        the promise rises to that ballot, so that no older leader can replace the value (rule 8).
        """
        for pvalue in message.entries:
            if pvalue.slot > self._known:
                self._keep(pvalue)
        self._advance()

    def note_truncated(self, source: NodeId, upto: Slot) -> None:
        """Remember that `source` has truncated its log up to slot `upto`."""
        if upto > self._truncated:
            self._truncated, self._truncated_by = upto, source

    def install_snapshot(self, slot: Slot) -> None:
        """Continue after `slot`: the host has a snapshot as of that slot."""
        self._log.skip_to(slot)
        self._out.skip_to(slot)
        self._known = max(self._known, slot)
        self._decided = {decided for decided in self._decided if decided > slot}
        self._advance()

    def fetch(self, now: Time) -> None:
        """Send a Fetch for the next missing slots if one is due.

        There is one request at a time. The next one follows when the host has taken all slots of the answer. After a
        timeout the request goes to another peer. A duplicated answer therefore causes no further request.
        """
        if (
            self._known_chosen <= self._known
            or self.chosen < self._known
            or self.snapshot_source is not None
            or not self._configurations.newest.members
        ):
            self._fetching = None
        elif self._fetching is None or self._fetching[0] <= self.chosen:
            self._unanswered = 0
            self._send_fetch(self._fetch_source, now)
        elif self._fetching[1] <= now:
            self._unanswered += 1
            others = self._configurations.others or [self._fetch_source]
            self._send_fetch(others[self._unanswered % len(others)], now)

    def next_deadline(self) -> Time | None:
        """Return the time at which the unanswered Fetch is repeated, None if there is none."""
        return self._fetching[1] if self._fetching is not None else None

    def _send_fetch(self, peer: NodeId, now: Time) -> None:
        self._fetching = (self.chosen + 1, now + self._retry)
        self._out.send(peer, Fetch(self.chosen + 1))

    def _keep(self, pvalue: PValue) -> None:
        held = self._log.get(pvalue.slot)
        if held is not None and held.ballot >= pvalue.ballot:
            require(
                held.value == pvalue.value,
                f"slot {pvalue.slot} is chosen with a value of ballot {pvalue.ballot}, but holds another value of "
                f"ballot {held.ballot}",
            )
        else:
            self._acceptor.adopt(pvalue)
        self._decided.add(pvalue.slot)

    def _advance(self) -> None:
        if not self._configurations.newest.members:
            return  # the configuration comes with a snapshot; without one the log cannot be interpreted
        ballot, upto = self._announced
        while True:
            slot = self._known + 1
            held = self._log.get(slot)
            if held is None or not (slot in self._decided or (slot <= upto and held.ballot == ballot)):
                return
            self._decided.discard(slot)
            self._known = slot
