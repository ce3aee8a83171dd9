"""Automatic membership changes, which the leader makes without a request.

The leader enrols the data of new members, lets a member with damaged data return with new data, and promotes a member
that has caught up. Like all membership changes, these go through the log, one at a time.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from kvstore.api.commands import Result
from kvstore.api.errors import Refused
from kvstore.api.membership import MemberRole, Membership, MembershipVersion, displaced, enrolled
from paxos.configuration import ALPHA
from paxos.replica import Replica
from paxos.types import MS, NodeId, Time

CHECK_INTERVAL_MS = 100
"""Interval at which the leader checks whether a change is due."""


class MembershipManager:
    """The schedule of automatic membership changes: at most one is in progress."""

    def __init__(self) -> None:
        self._next_check: Time = 0
        self._in_progress = False

    def due(
        self,
        memberships: list[MembershipVersion],
        proved: Mapping[NodeId, int],
        replacement_requests: Mapping[NodeId, int],
        replica: Replica,
        now: Time,
    ) -> Membership | None:
        """Return the membership to propose now, or None. The caller must call `answered` with the result.

        `proved` holds the incarnation that each linked member has proved to this replica, and that of this replica.
        `replacement_requests` holds the incarnation of the damaged data of each member that asks for a replacement.
        """
        if self._in_progress or now < self._next_check:
            return None
        self._next_check = now + CHECK_INTERVAL_MS * MS
        newest = memberships[-1]
        if newest.first > replica.chosen + 1:
            return None  # the last change is not in force yet
        membership = newest.membership
        change = (
            displaced(membership, replacement_requests)
            or enrolled(membership, proved)
            or _promoted(membership, proved, replica)
        )
        self._in_progress = change is not None
        return change

    def answered(self, _: Result | Refused) -> None:
        """Record that the change has ended, made or refused. The next check finds any change that is still needed."""
        self._in_progress = False


def _promoted(membership: Membership, proved: Mapping[NodeId, int], replica: Replica) -> Membership | None:
    """Return the membership with one learner promoted, or None. The learner has caught up and is linked: a voter
    without a link would count as a failed one."""
    for member in membership.members:
        linked = member.incarnation and proved.get(member.name) == member.incarnation
        caught_up = replica.chosen_by(member.name) + ALPHA >= replica.chosen
        if member.role is MemberRole.LEARNER and member.joining and linked and caught_up:
            return membership.changed(replace(member, role=member.becomes, joining=False))
    return None
