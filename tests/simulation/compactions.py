"""The bounds of compaction: a replica drops no change that its limits let it keep, and compacts nothing by halves."""

from kvstore.replica.retention import ON_A_FULL_DISK, RetentionLimits
from paxos.types import MS, NodeId, Time
from storage.base import end_of, first_of
from tests.simulation.machine import SimulatedMachine
from tests.simulation.reference import Reference
from tests.simulation.scenario import Scenario, StrikeKind

SEGMENT_MS = 1000
"""Changes of so long are kept or dropped together."""


class Compactions:
    """How far each replica has compacted its history."""

    def __init__(self, scenario: Scenario, reference: Reference) -> None:
        full = any(strike.kind is StrikeKind.FULL for strike in scenario.strikes)
        kept = [RetentionLimits(**limits) for limits in scenario.every_limits] + [ON_A_FULL_DISK] * full
        self._revisions = min(limits.history_revisions for limits in kept)
        self._age_ms = min(limits.history_age_ms for limits in kept)
        self._reference = reference
        self._restored = end_of(scenario.restored) if scenario.restored else 0
        self._right = {0, self._restored}
        """Positions up to which some replica could compact."""
        self._compacted: dict[NodeId, int] = {}
        self._seen: dict[NodeId, list[tuple[int, Time]]] = {}
        """When a replica first had the changes up to a position, by its clock, in order."""

    def started(self, machine: SimulatedMachine) -> None:
        """A replica goes on from another state: that of its disk, or of a peer."""
        assert machine.node is not None
        compacted = machine.node.machine.history.compacted
        assert compacted in self._right, f"{machine.name} begins with a history that nobody compacted up to {compacted}"
        self._compacted[machine.name] = compacted
        self._seen[machine.name] = [(machine.node.machine.shown_position, machine.clock())]

    def stepped(self, machine: SimulatedMachine) -> None:
        """A replica took a step."""
        node = machine.node
        assert node is not None
        seen, position = self._seen[machine.name], node.machine.shown_position
        if position > seen[-1][0]:
            seen.append((position, machine.clock() if machine.called_at is None else machine.called_at))
        compacted = node.machine.history.compacted
        if compacted == self._restored and not self._compacted[machine.name]:
            self.started(machine)  # the cluster is founded
        elif compacted != self._compacted[machine.name]:
            self._check(machine, compacted)
            self._compacted[machine.name] = compacted
            self._right.add(compacted)

    def _check(self, machine: SimulatedMachine, compacted: int) -> None:
        assert compacted > self._compacted[machine.name], f"{machine.name} takes back what it compacted"
        assert self._reference.ends_entry(compacted), f"{machine.name} compacts in the midst of an entry"
        seen = self._seen[machine.name]
        at = next(at for position, at in seen if position >= compacted)
        too_many = seen[-1][0] - compacted >= first_of(self._revisions)
        too_old = machine.clock() - at + SEGMENT_MS * MS > self._age_ms * MS
        assert too_many or too_old, f"{machine.name} compacts up to {compacted} what its limits let it keep"
