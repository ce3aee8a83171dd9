"""Which configuration decides which slot.

A configuration that is chosen in slot s is in force from slot s + ALPHA on (Lamport, "Paxos Made Simple", section 3: "the
set of servers that execute instance i + alpha is determined by the state after execution of the i-th"). So a leader
proposes a slot only once all that could have changed who votes in it is applied, and two members never disagree about
who votes. Phase 1 and leases speak for all slots from one on: they need a majority of each configuration that may decide
one of them (rule 27).

A voter that leaves votes on for the slots of the configurations that it belongs to, or the last of two could never leave.
But one that is to be given a new disk is not heard from then on, although it still counts in the size of the
configurations before: whoever answers to its name next may know nothing of its promises (rule 28).
"""

from collections.abc import Sequence
from typing import NamedTuple

from paxos.errors import require
from paxos.types import Configuration, NodeId, Slot

ALPHA = 32
"""Slots between the one in which a configuration is chosen and the first that it decides; part of the log's meaning, the
same everywhere and for ever. A leader has at most so many slots under way."""


class ConfigurationVersion(NamedTuple):
    """`configuration` decides the slots from `first` on, up to the next version."""

    first: Slot
    configuration: Configuration


class ConfigurationHistory:
    """The configurations that are known, as one member sees them; those that decide no open slot are forgotten."""

    def __init__(self, node: NodeId, versions: Sequence[ConfigurationVersion]) -> None:
        """`versions` in order; a replica that knows of none yet has one without voters."""
        require(bool(versions), "a replica without a configuration")
        self.node = node
        self._versions = list(versions)
        self.others: list[NodeId] = []
        """Everybody else who votes or learns, by any configuration that is not over."""
        self._update_members()

    @property
    def newest(self) -> Configuration:
        """The last that was chosen, in force or not."""
        return self._versions[-1].configuration

    @property
    def pending_from(self) -> Slot:
        """The slot from which the newest configuration is in force."""
        return self._versions[-1].first

    def at(self, slot: Slot) -> Configuration:
        """Who decides `slot`."""
        for version in reversed(self._versions):
            if version.first <= slot:
                return version.configuration
        return self._versions[0].configuration

    def since(self, slot: Slot) -> list[Configuration]:
        """Who decides `slot`, and everyone who decides a later one."""
        return [self.at(slot), *(version.configuration for version in self._versions if version.first > slot)]

    def is_voter(self, sender: NodeId) -> bool:
        """True for one whose answers count, wherever it votes."""
        return sender in self._counted

    def may_be_candidate(self, sender: NodeId) -> bool:
        """True for one to whom a promise may be made. Whoever has no vote in the newest configuration, and stands by an
        earlier one, may have been given a new disk since: its own vote, which it counts, would be of no worth."""
        return sender in self.newest.voters and sender not in self.newest.witnesses

    def may_lead(self, slot: Slot) -> bool:
        """True when this member votes for `slot` and all later ones, and is no witness."""
        return all(
            self.node in configuration.voters and self.node not in configuration.witnesses
            for configuration in self.since(slot)
        )

    def add(self, version: ConfigurationVersion) -> None:
        """A later configuration was chosen."""
        require(version.first > self._versions[-1].first, "configurations are chosen in order")
        self._versions.append(version)
        self._update_members()

    def replace(self, versions: Sequence[ConfigurationVersion]) -> None:
        """The state was replaced by a later one, with these."""
        self._versions = list(versions)
        self._update_members()

    def forget_before(self, slot: Slot) -> bool:
        """Slots before `slot` are decided. True when a configuration is over with them."""
        if len(self._versions) == 1 or self._versions[1].first > slot:
            return False
        follow = zip(self._versions, self._versions[1:], strict=False)
        self._versions = [version for version, later in follow if later.first > slot] + self._versions[-1:]
        self._update_members()
        return True

    def _update_members(self) -> None:
        names = dict.fromkeys(name for version in self._versions for name in version.configuration.members)
        self.others = [name for name in names if name != self.node]
        voters = {name for version in self._versions for name in version.configuration.voters}
        self._counted = frozenset(voters.difference(self.newest.unverified))
