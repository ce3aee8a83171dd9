"""The objects that all roles of one replica share."""

from typing import NamedTuple

from paxos.configuration import ConfigurationHistory
from paxos.options import Options
from paxos.outbox import Outbox
from paxos.types import NodeId


class RoleContext(NamedTuple):
    """The replica's name, its configurations, its options and its outbox."""

    node: NodeId
    configurations: ConfigurationHistory
    options: Options
    out: Outbox

    @property
    def others(self) -> list[NodeId]:
        """The members other than this one."""
        return self.configurations.others
