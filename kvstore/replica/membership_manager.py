"""What a leader does for the cluster without being asked: it enrols data that nobody had seen, gives a new place to who
has lost its data to damage, and promotes whoever joined and has caught up.

All are changes of the members like any other, proposed through the log, one at a time.
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
"""How often it looks whether there is something to do."""


class MembershipManager:
    """Of one replica, whether it leads or not."""

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
        """The change that should be made now; `answered` hears what became of it. `proved`: the incarnation of each
        member that has proved it to this replica, and its own. `replacement_requests`: that of data which was damaged."""
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
        """The change was made or not; what is still to be done will be seen."""
        self._under_way = False


def _promoted(membership: Membership, proved: Mapping[NodeId, int], replica: Replica) -> Membership | None:
    """Whoever has caught up, and is there: one that is not would be missing in every majority from then on."""
    for member in membership.members:
        here = member.incarnation and proved.get(member.name) == member.incarnation
        caught_up = replica.chosen_by(member.name) + ALPHA >= replica.chosen
        if member.role is MemberRole.LEARNER and member.joining and here and caught_up:
            return membership.changed(replace(member, role=member.becomes, joining=False))
    return None
