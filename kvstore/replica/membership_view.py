"""The applied membership, and the role of this replica in it."""

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import Member, MemberRole, Membership
from kvstore.api.status import Standing
from kvstore.replica.checkpointer import Checkpointer
from paxos.types import NodeId


class MembershipView:
    """The members of the cluster as seen by the replica `node`."""

    def __init__(self, node: NodeId, checkpointer: Checkpointer) -> None:
        self._node = node
        self._checkpointer = checkpointer
        self.refuses: Reason | None = None
        """Reason why this replica refuses requests, None for a replica that serves clients."""

    @property
    def newest(self) -> Membership:
        """The membership after the last applied change, which may not be in force yet."""
        return self._checkpointer.applier.machine.membership

    @property
    def known(self) -> bool:
        """True once this replica knows the membership."""
        return bool(self._checkpointer.applier.machine.memberships)

    @property
    def pending(self) -> bool:
        """True while the last membership change is not in force."""
        applier, memberships = self._checkpointer.applier, self._checkpointer.applier.machine.memberships
        return bool(memberships) and memberships[-1].first > applier.applied + 1

    @property
    def neighbours(self) -> dict[NodeId, Member]:
        """The peers to link with: the other members, and a removed member until its removal is in force."""
        memberships = self._checkpointer.applier.machine.memberships
        relevant = memberships if self.pending else memberships[-1:]
        return {
            member.name: member
            for version in relevant
            for member in version.membership.members
            if member.name != self._node
        }

    @property
    def is_witness(self) -> bool:
        """True when this replica is a witness, or will be once it has caught up."""
        member = self.newest.get(self._node)
        return member is not None and member.purpose is MemberRole.WITNESS

    @property
    def standing(self) -> Standing:
        """The standing of this replica in its cluster."""
        member = self.newest.get(self._node)
        if not self.known:
            return Standing.WAITING
        if member is None:
            return Standing.REMOVED
        return Standing.JOINING if member.joining else Standing(member.role.value)

    def update(self) -> None:
        """Update `refuses` after the membership has changed."""
        if not self.known:
            self.refuses = Reason.JOINING
        elif self.is_witness or self._checkpointer.applier.membership_only:
            self.refuses = Reason.WITNESS
        else:
            self.refuses = None if self.newest.get(self._node) is not None else Reason.REMOVED

    def refusal(self, reason: Reason) -> Refused:
        """Return a refusal that names the replicas that may answer instead."""
        members = (member for member in self.newest.members if member.purpose is not MemberRole.WITNESS)
        return Refused(reason, Outcome.FAILED, [member.name for member in members if member.name != self._node])
