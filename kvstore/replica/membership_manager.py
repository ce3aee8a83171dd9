"""Membership changes that the leader makes without being asked.

It enrols the data of new members, gives a member whose data was damaged a place for new data, and promotes a member
that has caught up. These are changes like any other: they go through the log, one at a time.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from kvstore.api.commands import Result
from kvstore.api.errors import Refused
from kvstore.api.membership import MemberRole, Membership, MembershipVersion, displaced, enrolled
from paxos.configuration import ALPHA
from paxos.replica import Replica
from paxos.types import MS, NodeId, Time

LOOK_MS = 100
"""Interval at which the leader looks for a change that is due."""


class MembershipManager:
    """The change that is due, and whether one is in progress."""

    def __init__(self) -> None:
        self._look_at: Time = 0
        self._under_way = False

    def due(
        self,
        memberships: list[MembershipVersion],
        proved: Mapping[NodeId, int],
        replacement_requests: Mapping[NodeId, int],
        replica: Replica,
        now: Time,
    ) -> Membership | None:
        """Return the change that has to be made now, or None. `answered` must be called when the change has ended.

        `proved` holds the incarnation that each linked member has proved to this replica, and the own.
        `replacement_requests` holds the incarnation of damaged data, by member.
        """
        if self._under_way or now < self._look_at:
            return None
        self._look_at = now + LOOK_MS * MS
        present = memberships[-1]
        if present.first > replica.chosen + 1:
            return None
        membership = present.membership
        change = (
            displaced(membership, replacement_requests)
            or enrolled(membership, proved)
            or _promoted(membership, proved, replica)
        )
        self._under_way = change is not None
        return change

    def answered(self, _: Result | Refused) -> None:
        """Note that the change has ended, whether it was made or not. The next look shows what is left to do."""
        self._under_way = False


def _promoted(membership: Membership, proved: Mapping[NodeId, int], replica: Replica) -> Membership | None:
    """Return the membership with one member promoted that has caught up and is linked. A member without a link would be
    missing in every majority from then on."""
    for member in membership.members:
        here = member.incarnation and proved.get(member.name) == member.incarnation
        caught_up = replica.chosen_by(member.name) + ALPHA >= replica.chosen
        if member.role is MemberRole.LEARNER and member.joining and here and caught_up:
            return membership.changed(replace(member, role=member.becomes, joining=False))
    return None
