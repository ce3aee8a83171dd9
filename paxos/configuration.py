"""Which membership decides which slot.

A membership that is chosen in slot s is in force from slot s + ALPHA on (Lamport, "Paxos Made Simple", section 3: "the
set of servers that execute instance i + alpha is determined by the state after execution of the i-th"). So a leader
proposes a slot only once all that could have changed who votes in it is applied, and two members never disagree about
who votes. Phase 1 and leases speak for all slots from one on: they need a majority of each membership that may decide
one of them (rule 27).

A voter that leaves votes on for the slots of the memberships that it belongs to, or the last of two could never leave.
But one that is to be given a new disk is not heard from then on, although it still counts in the size of the
memberships before: whoever answers to its name next may know nothing of its promises (rule 28).
"""

from collections.abc import Sequence
from typing import NamedTuple

from paxos.errors import require
from paxos.types import Membership, NodeId, Slot

ALPHA = 32
"""Slots between the one in which a membership is chosen and the first that it decides; part of the log's meaning, the
same everywhere and for ever. A leader has at most so many slots under way."""


class Epoch(NamedTuple):
    """`membership` decides the slots from `first` on, up to the next epoch."""

    first: Slot
    membership: Membership


class Configuration:
    """The memberships that are known, as one member sees them; those that decide no open slot are forgotten."""

    def __init__(self, node: NodeId, epochs: Sequence[Epoch]) -> None:
        """`epochs` in order; a replica that knows of none yet has one without voters."""
        require(bool(epochs), "a replica without a membership")
        self.node = node
        self._epochs = list(epochs)
        self.others: list[NodeId] = []
        """Everybody else who votes or learns, by any membership that is not over."""
        self._gather()

    @property
    def newest(self) -> Membership:
        """The last that was chosen, in force or not."""
        return self._epochs[-1].membership

    @property
    def pending_from(self) -> Slot:
        """The slot from which the newest membership is in force."""
        return self._epochs[-1].first

    def at(self, slot: Slot) -> Membership:
        """Who decides `slot`."""
        for epoch in reversed(self._epochs):
            if epoch.first <= slot:
                return epoch.membership
        return self._epochs[0].membership

    def since(self, slot: Slot) -> list[Membership]:
        """Who decides `slot`, and everyone who decides a later one."""
        return [self.at(slot), *(epoch.membership for epoch in self._epochs if epoch.first > slot)]

    def is_voter(self, sender: NodeId) -> bool:
        """True for one whose answers count, wherever it votes."""
        return sender in self._heard

    def may_stand(self, sender: NodeId) -> bool:
        """True for one to whom a promise may be made. Whoever has no vote in the newest membership, and stands by an
        earlier one, may have been given a new disk since: its own vote, which it counts, would be of no worth."""
        return sender in self.newest.voters and sender not in self.newest.witnesses

    def may_lead(self, slot: Slot) -> bool:
        """True when this member votes for `slot` and all later ones, and is no witness."""
        return all(
            self.node in membership.voters and self.node not in membership.witnesses for membership in self.since(slot)
        )

    def add(self, epoch: Epoch) -> None:
        """A later membership was chosen."""
        require(epoch.first > self._epochs[-1].first, "memberships are chosen in order")
        self._epochs.append(epoch)
        self._gather()

    def replace(self, epochs: Sequence[Epoch]) -> None:
        """The state was replaced by a later one, with these."""
        self._epochs = list(epochs)
        self._gather()

    def forget_before(self, slot: Slot) -> bool:
        """Slots before `slot` are decided. True when a membership is over with them."""
        if len(self._epochs) == 1 or self._epochs[1].first > slot:
            return False
        follow = zip(self._epochs, self._epochs[1:], strict=False)
        self._epochs = [epoch for epoch, later in follow if later.first > slot] + self._epochs[-1:]
        self._gather()
        return True

    def _gather(self) -> None:
        names = dict.fromkeys(name for epoch in self._epochs for name in epoch.membership.members)
        self.others = [name for name in names if name != self.node]
        voters = {name for epoch in self._epochs for name in epoch.membership.voters}
        self._heard = frozenset(voters.difference(self.newest.silent))
