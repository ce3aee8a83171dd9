"""What all roles of one replica share."""

from typing import NamedTuple

from paxos.configuration import ConfigurationHistory
from paxos.options import Options
from paxos.outbox import Outbox
from paxos.types import NodeId


class RoleContext(NamedTuple):
    """Who the replica is, whom it counts, by which knobs it goes, and where it puts its work."""

    node: NodeId
    configurations: ConfigurationHistory
    options: Options
    out: Outbox

    @property
    def others(self) -> list[NodeId]:
        """The members beside this one."""
        return self.configurations.others
