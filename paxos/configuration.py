"""Configurations: which members decide which slot.

A configuration that is chosen in slot s decides the slots from s + ALPHA on (Lamport, "Paxos Made Simple", section 3:
the servers that execute instance i + alpha are determined by the state after instance i). A leader proposes a slot only
after it has applied every slot that could have changed the configuration of that slot, so two members never disagree
about the voters of a slot. Phase 1 and a lease cover all slots from a first one on, so each needs a majority of every
configuration that decides one of these slots (rule 27).

A voter that is removed still votes in the slots of its old configurations; otherwise one of two voters could never be
removed. The votes of an unverified member do not count, although it still counts in the size of its old configurations:
its disk may have been replaced, so the process with its name may know nothing of the promises made before (rule 28).
"""

from collections.abc import Sequence
from typing import NamedTuple

from paxos.errors import require
from paxos.types import Configuration, NodeId, Slot

ALPHA = 32
"""Distance from the slot in which a configuration is chosen to the first slot that the configuration decides. The value
is part of the meaning of the log: it is the same on every replica and never changes. A leader has at most ALPHA slots
in flight."""


class ConfigurationVersion(NamedTuple):
    """A configuration and the first slot that it decides. It decides all slots up to the first one of the next
    version."""

    first: Slot
    configuration: Configuration


class ConfigurationHistory:
    """The configurations that `node` knows of, without those whose slots are all chosen."""

    def __init__(self, node: NodeId, versions: Sequence[ConfigurationVersion]) -> None:
        """Start with `versions` in order of their slots. A replica without state has one version without voters."""
        require(bool(versions), "a replica without a configuration")
        self.node = node
        self._versions = list(versions)
        self.others: list[NodeId] = []
        """Members of these configurations, voters and learners, other than `node`."""
        self._update_members()

    @property
    def newest(self) -> Configuration:
        """The configuration that was chosen last, whether or not it is in force."""
        return self._versions[-1].configuration

    @property
    def pending_from(self) -> Slot:
        """The first slot that the newest configuration decides."""
        return self._versions[-1].first

    def at(self, slot: Slot) -> Configuration:
        """Return the configuration that decides `slot`, or the oldest known one if `slot` is before it."""
        for version in reversed(self._versions):
            if version.first <= slot:
                return version.configuration
        return self._versions[0].configuration

    def since(self, slot: Slot) -> list[Configuration]:
        """Return the configuration that decides `slot`, followed by all later configurations."""
        return [self.at(slot), *(version.configuration for version in self._versions if version.first > slot)]

    def is_voter(self, sender: NodeId) -> bool:
        """Return True if votes of `sender` count in some configuration."""
        return sender in self._counted

    def may_be_candidate(self, sender: NodeId) -> bool:
        """Return True if an acceptor may promise to `sender`.

        A member that is a voter only in an earlier configuration may try to lead, but its disk may have been replaced
        since. It would count its own vote, although the other members no longer count that vote (rule 28).
        """
        return sender in self.newest.voters and sender not in self.newest.witnesses

    def may_lead(self, slot: Slot) -> bool:
        """Return True if this member votes in `slot` and in all later slots, and is not a witness."""
        return all(
            self.node in configuration.voters and self.node not in configuration.witnesses
            for configuration in self.since(slot)
        )

    def add(self, version: ConfigurationVersion) -> None:
        """Add a configuration that was chosen. Raises InvariantError if it is out of order."""
        require(
            version.first > self._versions[-1].first,
            f"a configuration first in force at slot {version.first} was added after one at {self._versions[-1].first}",
        )
        self._versions.append(version)
        self._update_members()

    def replace(self, versions: Sequence[ConfigurationVersion]) -> None:
        """Replace all versions by those of a snapshot."""
        self._versions = list(versions)
        self._update_members()

    def forget_before(self, slot: Slot) -> bool:
        """Forget configurations that decide only slots before `slot`. Return True if any was forgotten."""
        if len(self._versions) == 1 or self._versions[1].first > slot:
            return False
        pairs = zip(self._versions, self._versions[1:], strict=False)
        self._versions = [version for version, later in pairs if later.first > slot] + self._versions[-1:]
        self._update_members()
        return True

    def _update_members(self) -> None:
        names = dict.fromkeys(name for version in self._versions for name in version.configuration.members)
        self.others = [name for name in names if name != self.node]
        voters = {name for version in self._versions for name in version.configuration.voters}
        self._counted = frozenset(voters.difference(self.newest.unverified))
