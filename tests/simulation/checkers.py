"""What must hold after every step of a simulated cluster, and at its end."""

from paxos.messages import Accepted, Promise
from paxos.ready import Ready
from paxos.types import ZERO, Ballot, NodeId, Slot
from tests.simulation.world import Cluster, Machine


class Safety:
    """Watches every step: one value for each slot, applied without a gap, promises that never go back, votes that rest
    on durable records, one lease at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.values: dict[Slot, bytes] = {}
        self._promised: dict[NodeId, Ballot] = {}
        cluster.observers.append(self._stepped)

    def after_event(self) -> None:
        """At one moment, one replica at most may believe that it can read alone."""
        holders = [
            machine.name
            for machine in self._cluster.machines.values()
            if machine.node is not None and machine.node.replica.lease_holds(machine.clock())
        ]
        assert len(holders) <= 1, f"{holders} hold a lease at the same time"

    def _stepped(self, machine: Machine, ready: Ready) -> None:
        node = machine.node
        assert node is not None
        for slot, value in ready.chosen:
            assert self.values.setdefault(slot, value) == value, f"two values were chosen for slot {slot}"
        durable = machine.durable
        for envelope in ready.messages:
            message = envelope.message
            if isinstance(message, Promise | Accepted):
                assert message.ballot <= durable.promised, (
                    f"{machine.name} sent {message} before its promise is durable"
                )
            if isinstance(message, Accepted):
                held = durable.read(message.slot)
                assert held is not None, f"{machine.name} voted for slot {message.slot} before it is durable"
                assert held.ballot >= message.ballot, f"{machine.name} voted for a ballot that is not durable"
        assert durable.promised >= self._promised.get(machine.name, ZERO), f"{machine.name} lowered its promise"
        self._promised[machine.name] = durable.promised


def same_state(cluster: Cluster) -> None:
    """Every replica has applied the same prefix to the same state."""
    nodes = [machine.node for machine in cluster.machines.values() if machine.node is not None]
    states = {(node.applied, node.machine.revision, tuple(sorted(node.machine.records.items()))) for node in nodes}
    assert len(states) == 1, f"replicas differ: {[(node.id, node.applied, node.machine.revision) for node in nodes]}"
