"""Who belongs to the cluster, as the log says it: names, addresses, roles, and which data each of them started with.

A change is a whole new membership, numbered one above the one that it replaces: two that were made from the same one
cannot both be applied, and one that is not in force yet stands against the next (rule 27).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec.structs import replace

from paxos.configuration import ALPHA, ConfigurationVersion
from paxos.types import Configuration, NodeId, Slot


class MemberRole(StrEnum):
    """What a member does (rule 29)."""

    VOTER = "voter"
    """Votes, leads, serves."""
    WITNESS = "witness"
    """Votes and keeps the log; never leads, has no state and serves no client."""
    LEARNER = "learner"
    """Has the state and serves reads and writes like any other; never votes."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """`address` is that of its peer listener, empty where each replica's own settings say it: those that a cluster
    begins with may be reached in different ways. `incarnation` is of the data that it votes with, 0 while nobody has
    seen it. A learner that is `joining` takes the role that it `becomes` once it has caught up."""

    name: NodeId
    address: Annotated[str, msgspec.Meta(max_length=300)]
    role: MemberRole = MemberRole.VOTER
    incarnation: Annotated[int, msgspec.Meta(ge=0)] = 0
    joining: bool = False
    becomes: MemberRole = MemberRole.VOTER

    @property
    def purpose(self) -> MemberRole:
        """The role that it has, or will have once it has caught up."""
        return self.becomes if self.joining else self.role


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """All members, by a version that grows by one with each change. One without members is not known yet."""

    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    members: tuple[Member, ...] = ()

    def get(self, name: NodeId) -> Member | None:
        """The member called `name`."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Those who vote, witnesses too."""
        return tuple(member.name for member in self.members if member.role is not MemberRole.LEARNER)

    @property
    def configuration(self) -> Configuration:
        """What the protocol needs to know of it."""
        return Configuration(
            self.voters,
            tuple(member.name for member in self.members if member.role is MemberRole.LEARNER),
            tuple(member.name for member in self.members if member.role is MemberRole.WITNESS),
            tuple(
                member.name for member in self.members if member.role is MemberRole.LEARNER and not member.incarnation
            ),
        )

    def changed(self, *members: Member) -> "Membership":
        """The next membership: `members` in the place of those of their names, or added."""
        names = {member.name for member in members}
        return Membership(self.version + 1, (*(old for old in self.members if old.name not in names), *members))

    def without(self, name: NodeId) -> "Membership":
        """The next membership, less the member called `name`."""
        return Membership(self.version + 1, tuple(member for member in self.members if member.name != name))


class MembershipVersion(msgspec.Struct, frozen=True, array_like=True):
    """`membership` decides the slots from `first` on."""

    first: Slot
    membership: Membership


def genesis(voters: Iterable[NodeId]) -> list[MembershipVersion]:
    """The membership that a cluster starts with: everybody was told the same."""
    return [MembershipVersion(1, Membership(0, tuple(Member(name, "") for name in sorted(voters))))]


def configurations_of(memberships: Iterable[MembershipVersion]) -> list[ConfigurationVersion]:
    """The same for the protocol; without voters where nothing is known yet."""
    return [ConfigurationVersion(version.first, version.membership.configuration) for version in memberships] or [
        ConfigurationVersion(1, Configuration(()))
    ]


def refusal(memberships: list[MembershipVersion], change: Membership, slot: Slot) -> str | None:
    """Why `change`, ordered in `slot`, is not to be made: for people. None when it is. Part of the state machine: the
    same on every replica, for ever."""
    if not memberships:
        return "this replica has not been told who the members are"
    present = memberships[-1]
    if change.version != present.membership.version + 1:
        return f"the members have changed since: their version is {present.membership.version}; look, and try again"
    if present.first > slot:
        return "another change of the members is not in force yet: try again in a moment"
    if len(set(change.voters) ^ set(present.membership.voters)) > 1:
        return "one voter at a time: any two majorities must share one"
    if any(_other_data(present.membership.get(member.name), member) for member in change.members):
        return "a voter cannot go on with other data: replace it"
    if len({member.name for member in change.members}) < len(change.members):
        return "two members have one name"
    if not any(member.role is MemberRole.VOTER for member in change.members):
        return "a cluster without a voter that may lead can decide nothing: add or promote one first"
    if len(present.membership.voters) == 2 and any(_forgetful(change.get(name)) for name in present.membership.voters):
        return "of two voters neither can be replaced: it takes both to decide that. Add a third one first"
    return None


def _other_data(before: Member | None, after: Member) -> bool:
    votes = before is not None and MemberRole.LEARNER not in {before.role, after.role}
    return votes and before is not None and before.incarnation not in {0, after.incarnation}


def _forgetful(after: Member | None) -> bool:
    """Not heard any more: it may have a new disk."""
    return after is not None and after.role is MemberRole.LEARNER and not after.incarnation


def newcomer(name: NodeId, address: str, role: MemberRole) -> Member:
    """A member whose data begins now: whoever shall vote catches up first."""
    if role is MemberRole.LEARNER:
        return Member(name, address, role)
    return Member(name, address, MemberRole.LEARNER, joining=True, becomes=role)


def enrolled(membership: Membership, proved: Mapping[NodeId, int]) -> Membership | None:
    """The membership with the incarnations of those that nobody had seen; None when there is nothing new."""
    seen = [
        replace(member, incarnation=proved[member.name])
        for member in membership.members
        if not member.incarnation and member.name in proved
    ]
    return membership.changed(*seen) if seen else None


def displaced(membership: Membership, replacement_requests: Mapping[NodeId, int]) -> Membership | None:
    """The membership in which one of those that lost their data may come with other data; None when there is none.
    `replacement_requests`: the incarnation that was lost."""
    for member in membership.members:
        if member.incarnation and replacement_requests.get(member.name) == member.incarnation:
            return membership.changed(newcomer(member.name, member.address, member.purpose))
    return None


def in_force_from(slot: Slot) -> Slot:
    """The first slot that a membership decides which was ordered in `slot`."""
    return slot + ALPHA
