"""The members of the cluster as the log records them: names, addresses, roles, and the data that each started with.

A change is a whole new membership, with a version one above that of the membership it replaces. Of two changes made
from the same membership only one can be applied, and a change is refused while the one before is not in force (rule
27).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec.structs import replace

from paxos.configuration import ALPHA, ConfigurationVersion
from paxos.types import Configuration, NodeId, Slot


class MemberRole(StrEnum):
    """The role of a member (rule 29)."""

    VOTER = "voter"
    """Votes, leads and serves clients."""
    WITNESS = "witness"
    """Votes and keeps the log. It never leads, has no records and serves no client."""
    LEARNER = "learner"
    """Has the records and serves clients. It never votes."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member. `address` is that of its peer listener, empty for a founding member: its address is in the settings
    of each replica, because each may reach it in another way. `incarnation` is that of the data it votes with, 0
    before it was enrolled. A learner that is `joining` takes the role `becomes` once it has caught up."""

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
    """All members. `version` grows by one with each change. A membership without members is not known yet."""

    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    members: tuple[Member, ...] = ()

    def get(self, name: NodeId) -> Member | None:
        """Return the member called `name`."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Names of the members that vote, witnesses included."""
        return tuple(member.name for member in self.members if member.role is not MemberRole.LEARNER)

    @property
    def configuration(self) -> Configuration:
        """The membership as the protocol needs it."""
        return Configuration(
            self.voters,
            tuple(member.name for member in self.members if member.role is MemberRole.LEARNER),
            tuple(member.name for member in self.members if member.role is MemberRole.WITNESS),
            tuple(
                member.name for member in self.members if member.role is MemberRole.LEARNER and not member.incarnation
            ),
        )

    def changed(self, *members: Member) -> "Membership":
        """Return the next membership. `members` replace those of the same names, or are added."""
        names = {member.name for member in members}
        return Membership(self.version + 1, (*(old for old in self.members if old.name not in names), *members))

    def without(self, name: NodeId) -> "Membership":
        """Return the next membership without the member called `name`."""
        return Membership(self.version + 1, tuple(member for member in self.members if member.name != name))


class MembershipVersion(msgspec.Struct, frozen=True, array_like=True):
    """A membership, and the first slot that it decides."""

    first: Slot
    membership: Membership


def genesis(voters: Iterable[NodeId]) -> list[MembershipVersion]:
    """Return the membership that a cluster starts with: `voters` are the same in the settings of all founders."""
    return [MembershipVersion(1, Membership(0, tuple(Member(name, "") for name in sorted(voters))))]


def configurations_of(memberships: Iterable[MembershipVersion]) -> list[ConfigurationVersion]:
    """Return `memberships` as the protocol needs them, with one configuration without voters for no membership."""
    return [ConfigurationVersion(version.first, version.membership.configuration) for version in memberships] or [
        ConfigurationVersion(1, Configuration(()))
    ]


def refusal(memberships: list[MembershipVersion], change: Membership, slot: Slot) -> str | None:
    """Return the reason, for the operator, why `change` in `slot` is refused; None when it is made. This is part of the
    state machine: every release must return the same for the same log."""
    if not memberships:
        return "this replica does not know the membership yet: repeat the change on a replica that is ready"
    present = memberships[-1]
    version = present.membership.version
    if change.version != version + 1:
        return f"the membership is at version {version} by now: read the members again, and repeat the change"
    if present.first > slot:
        return f"the membership change of version {version} is not in force yet: repeat this change in a moment"
    moved = sorted(set(change.voters) ^ set(present.membership.voters))
    if len(moved) > 1:
        return f"the change adds or removes several voters ({', '.join(moved)}): change one voter at a time"
    for member in change.members:
        if _has_other_data(present.membership.get(member.name), member):
            return f"voter {member.name} cannot continue with other data: replace the member"
    if len({member.name for member in change.members}) < len(change.members):
        return "two members have one name"
    if not any(member.role is MemberRole.VOTER for member in change.members):
        return "no voter that may lead would be left: add or promote a voter first"
    if len(present.membership.voters) == 2 and any(_forgetful(change.get(name)) for name in present.membership.voters):
        return "neither of two voters can be replaced, because the change needs the votes of both: add a voter first"
    return None


def _has_other_data(before: Member | None, after: Member) -> bool:
    votes = before is not None and MemberRole.LEARNER not in {before.role, after.role}
    return votes and before is not None and before.incarnation not in {0, after.incarnation}


def _forgetful(after: Member | None) -> bool:
    """Return True for a member that may have a new disk: its votes are not counted."""
    return after is not None and after.role is MemberRole.LEARNER and not after.incarnation


def newcomer(name: NodeId, address: str, role: MemberRole) -> Member:
    """Return a member whose data begins now. A future voter catches up first."""
    if role is MemberRole.LEARNER:
        return Member(name, address, role)
    return Member(name, address, MemberRole.LEARNER, joining=True, becomes=role)


def enrolled(membership: Membership, proved: Mapping[NodeId, int]) -> Membership | None:
    """Return the membership with the `proved` incarnations of members that were not enrolled yet; None when there are
    none."""
    seen = [
        replace(member, incarnation=proved[member.name])
        for member in membership.members
        if not member.incarnation and member.name in proved
    ]
    return membership.changed(*seen) if seen else None


def displaced(membership: Membership, replacement_requests: Mapping[NodeId, int]) -> Membership | None:
    """Return the membership in which one member that lost its data may come back with new data; None when there is
    no such member. `replacement_requests` holds the lost incarnations."""
    for member in membership.members:
        if member.incarnation and replacement_requests.get(member.name) == member.incarnation:
            return membership.changed(newcomer(member.name, member.address, member.purpose))
    return None


def in_force_from(slot: Slot) -> Slot:
    """Return the first slot that a membership decides which was ordered in `slot`."""
    return slot + ALPHA
