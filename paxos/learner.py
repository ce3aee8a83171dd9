"""The learner: which slots are chosen, in order, and how a replica gets those that it missed.

"To learn that a value has been chosen, a learner must find out that a proposal has been accepted by a majority of
acceptors" (Lamport, "Paxos Made Simple", section 2.3). Here the leader is the distinguished learner: it counts, and
tells the others a prefix. The prefix comes with the leader's ballot, and speaks for a slot only to those who accepted
that slot under this very ballot; everybody else fetches the value (rule 12).
"""

from paxos.acceptor import Acceptor
from paxos.context import RoleContext
from paxos.errors import require
from paxos.messages import Fetch, Learn
from paxos.types import MS, ZERO, Ballot, NodeId, PValue, Slot, Time


class Learner:
    """Moves the chosen prefix of the log, slot after slot without a gap."""

    def __init__(self, acceptor: Acceptor, context: RoleContext) -> None:
        self._acceptor = acceptor
        self._log = acceptor.log
        self._out = context.out
        self._configurations = context.configurations
        self._retry = context.options.retransmit_ms * MS
        self._decided: set[Slot] = set()
        self._announced = (ZERO, 0)
        self._fetch_source: NodeId = ""
        self._known_chosen: Slot = 0
        self._fetching: tuple[Slot, Time] | None = None
        self._unanswered = 0
        self._truncated: Slot = 0
        self._truncated_by: NodeId = ""

    @property
    def chosen(self) -> Slot:
        """The chosen prefix."""
        return self._log.chosen

    @property
    def behind(self) -> bool:
        """True while a peer is known to have a longer prefix."""
        return self._known_chosen > self.chosen

    @property
    def snapshot_source(self) -> NodeId | None:
        """A peer that has cut the next slot from its log: its state has to be fetched (rule 11)."""
        return self._truncated_by if self._truncated > self.chosen else None

    def decide(self, slot: Slot) -> None:
        """The leader counted a majority for what its own acceptor holds for `slot`."""
        if slot > self.chosen:
            self._decided.add(slot)
            self._advance()

    def announce(self, ballot: Ballot, upto: Slot) -> None:
        """The leader of `ballot` says that all slots up to `upto` are chosen."""
        self._announced = max(self._announced, (ballot, upto))
        self._advance()
        self.note_chosen(ballot.node, upto)

    def note_chosen(self, source: NodeId, chosen: Slot) -> None:
        """`source` has a chosen prefix of `chosen`, and can be asked for what is missing here."""
        if chosen >= self._known_chosen:
            self._fetch_source, self._known_chosen = source, chosen

    def accepted(self) -> None:
        """The own acceptor holds a new value: an earlier announcement may speak for it."""
        self._advance()

    def learn(self, message: Learn) -> None:
        """Chosen values from a peer. They are kept as accepted under the ballot with which the peer holds them, and
        like every accepted value they raise the promise to it, so that no older leader can replace them."""
        for pvalue in message.entries:
            if pvalue.slot > self.chosen:
                self._keep(pvalue)
        self._advance()

    def note_truncated(self, source: NodeId, upto: Slot) -> None:
        """`source` no longer has the slots up to `upto`."""
        if upto > self._truncated:
            self._truncated, self._truncated_by = upto, source

    def install_snapshot(self, slot: Slot) -> None:
        """The state as of `slot` is known: go on behind it."""
        self._log.skip_to(slot)
        self._out.skip_to(slot)
        self._decided = {decided for decided in self._decided if decided > slot}
        self._advance()

    def fetch(self, now: Time) -> None:
        """Ask for the next page of what is missing, one request at a time: the next one only once this one brought
        something, or after a while, and then of another peer. Copies of an answer therefore bring no further
        questions."""
        if (
            self._known_chosen <= self.chosen
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
        """When an unanswered Fetch is repeated."""
        return self._fetching[1] if self._fetching is not None else None

    def _send_fetch(self, peer: NodeId, now: Time) -> None:
        self._fetching = (self.chosen + 1, now + self._retry)
        self._out.send(peer, Fetch(self.chosen + 1))

    def _keep(self, pvalue: PValue) -> None:
        held = self._log.get(pvalue.slot)
        if held is not None and held.ballot >= pvalue.ballot:
            require(
                held.value == pvalue.value, f"slot {pvalue.slot} is chosen and holds another value of a higher ballot"
            )
        else:
            self._acceptor.adopt(pvalue)
        self._decided.add(pvalue.slot)

    def _advance(self) -> None:
        if not self._configurations.newest.members:
            return  # what the log means begins with a state that says who the members are
        ballot, upto = self._announced
        while True:
            slot = self._log.chosen + 1
            held = self._log.get(slot)
            if held is None or not (slot in self._decided or (slot <= upto and held.ballot == ballot)):
                return
            self._decided.discard(slot)
            self._out.choose(slot, self._log.choose_next().value)
