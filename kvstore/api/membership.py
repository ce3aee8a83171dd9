"""The members of the cluster as the log records them: names, addresses, roles and incarnations.

A change is a whole new membership, with a version one above that of the membership that it replaces. Of two changes to
the same membership only one can be applied, and a change is refused while the previous change is not in force (rule
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
    """A member that votes, may lead and serves clients."""
    WITNESS = "witness"
    """A member that votes and keeps the log. It never leads, has no records and serves no client."""
    LEARNER = "learner"
    """A member that has the records and serves clients. It never votes."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member. `address` is that of its peer listener. It is empty for a founding member, whose address is in the
    settings of each replica, because replicas may reach the member by different addresses. `incarnation` is that of its
    enrolled data, 0 before the member is enrolled. A learner that is `joining` takes the role `becomes` once it has
    caught up."""

    name: NodeId
    address: Annotated[str, msgspec.Meta(max_length=300)]
    role: MemberRole = MemberRole.VOTER
    incarnation: Annotated[int, msgspec.Meta(ge=0)] = 0
    joining: bool = False
    becomes: MemberRole = MemberRole.VOTER

    @property
    def purpose(self) -> MemberRole:
        """The role that the member has, or will have once it has caught up."""
        return self.becomes if self.joining else self.role


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """All members. `version` grows by one with each change. A membership without members stands for an unknown one."""

    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    members: tuple[Member, ...] = ()

    def get(self, name: NodeId) -> Member | None:
        """Return the member called `name`, None if there is none."""
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
        """Return the next membership: `members` replace the members with the same names, or are added."""
        names = {member.name for member in members}
        return Membership(self.version + 1, (*(old for old in self.members if old.name not in names), *members))

    def without(self, name: NodeId) -> "Membership":
        """Return the next membership without the member called `name`."""
        return Membership(self.version + 1, tuple(member for member in self.members if member.name != name))


class MembershipVersion(msgspec.Struct, frozen=True, array_like=True):
    """A membership, and the first slot that it decides."""

    first: Slot
    membership: Membership


def founded(
    members: Iterable[tuple[NodeId, int]], absent: Iterable[NodeId], after: Slot = 0
) -> list[MembershipVersion]:
    """Return the membership with which a cluster starts: voters with the incarnations of their data, and founding
    members that were absent, which join as voters. The log of the cluster begins after slot `after`."""
    voters = (Member(name, "", incarnation=incarnation) for name, incarnation in members)
    joining = (newcomer(name, "", MemberRole.VOTER) for name in absent)
    return [MembershipVersion(after + 1, Membership(0, (*voters, *joining)))]


def configurations_of(memberships: Iterable[MembershipVersion]) -> list[ConfigurationVersion]:
    """Return `memberships` as the protocol needs them; one configuration without voters if there are none."""
    return [ConfigurationVersion(version.first, version.membership.configuration) for version in memberships] or [
        ConfigurationVersion(1, Configuration(()))
    ]


def refusal(memberships: list[MembershipVersion], change: Membership, slot: Slot) -> str | None:
    """Return the reason, for the operator, why `change` in `slot` is refused; None if the change is made. This function
    is part of the state machine: every release must decide alike for the same log."""
    if not memberships:
        return "this replica does not know the membership yet: repeat the change on a replica that is ready"
    present = memberships[-1]
    version = present.membership.version
    if change.version != version + 1:
        return f"the membership is at version {version} by now: read the members again, and repeat the change"
    if present.first > slot:
        return f"the membership change of version {version} is not in force yet: repeat this change in a moment"
    changed_voters = sorted(set(change.voters) ^ set(present.membership.voters))
    if len(changed_voters) > 1:
        return f"the change adds or removes several voters ({', '.join(changed_voters)}): change one voter at a time"
    for member in change.members:
        if _has_other_data(present.membership.get(member.name), member):
            return f"voter {member.name} cannot continue with other data: replace the member"
    if len({member.name for member in change.members}) < len(change.members):
        return "two members have one name"
    if not any(member.role is MemberRole.VOTER for member in change.members):
        return "no voter that may lead would be left: add or promote a voter first"
    if len(present.membership.voters) == 2 and any(
        _is_unverified(change.get(name)) for name in present.membership.voters
    ):
        return "neither of two voters can be replaced, because the change needs the votes of both: add a voter first"
    return None


def _has_other_data(before: Member | None, after: Member) -> bool:
    votes = before is not None and MemberRole.LEARNER not in {before.role, after.role}
    return votes and before is not None and before.incarnation not in {0, after.incarnation}


def _is_unverified(after: Member | None) -> bool:
    """Return True for a member whose votes do not count, because its disk may have been replaced (rule 28)."""
    return after is not None and after.role is MemberRole.LEARNER and not after.incarnation


def newcomer(name: NodeId, address: str, role: MemberRole) -> Member:
    """Return a member that starts without data. A future voter or witness is a joining learner first."""
    if role is MemberRole.LEARNER:
        return Member(name, address, role)
    return Member(name, address, MemberRole.LEARNER, joining=True, becomes=role)


def enrolled(membership: Membership, proved: Mapping[NodeId, int]) -> Membership | None:
    """Return the membership in which the members of `proved`, which maps names to proved incarnations, are enrolled;
    None if that changes nothing."""
    newly_enrolled = [
        replace(member, incarnation=proved[member.name])
        for member in membership.members
        if not member.incarnation and member.name in proved
    ]
    return membership.changed(*newly_enrolled) if newly_enrolled else None


def displaced(membership: Membership, replacement_requests: Mapping[NodeId, int]) -> Membership | None:
    """Return the membership in which one member that lost its data may come back with new data; None if there is no
    such member. `replacement_requests` maps names to the incarnations of the lost data."""
    for member in membership.members:
        if member.incarnation and replacement_requests.get(member.name) == member.incarnation:
            return membership.changed(newcomer(member.name, member.address, member.purpose))
    return None


def in_force_from(slot: Slot) -> Slot:
    """Return the first slot that is decided by a membership ordered in `slot`."""
    return slot + ALPHA
