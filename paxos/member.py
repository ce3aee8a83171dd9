"""What all roles of one replica share."""

from typing import NamedTuple

from paxos.options import Options
from paxos.outbox import Outbox
from paxos.types import Membership, NodeId


class Member(NamedTuple):
    """Who the replica is, whom it counts, by which knobs it goes, and where it puts its work."""

    node: NodeId
    membership: Membership
    options: Options
    out: Outbox

    @property
    def others(self) -> list[NodeId]:
        """The voters beside this one."""
        return self.membership.others(self.node)
