"""Somebody who changes the members of a simulated cluster again and again: adds, removes, promotes, replaces disks.

A disk is only wiped while no other wiped one is on its way back: a value that a majority holds must stay somewhere.
"""

from collections.abc import Callable

from msgspec.structs import replace

from kvstore.api.commands import Reconfigure
from kvstore.api.membership import Member, MemberRole, Membership
from kvstore.replica.node import Node
from paxos.types import NodeId
from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine

FEWEST_VOTERS = 1
"""A cluster may shrink to so many; a disk is only lost where a majority stays."""


class Operator:
    """Proposes a change to a random replica every now and then, until `stopped`."""

    def __init__(self, cluster: SimulatedCluster, safety: Safety) -> None:
        self._cluster = cluster
        self._safety = safety
        self._rng = cluster.scenario.rng("operator")
        self._wiped: NodeId | None = None
        self._wiped_at = 0
        self._proposed = 0
        self.stopped = False
        self._wait()

    def _wait(self) -> None:
        self._cluster.world.between_ms(self._rng, (1, 2 * self._cluster.scenario.changes_ms), self._act)

    def _act(self) -> None:
        if self.stopped and (self._wiped is None or self._is_back(self._wiped)):
            return  # not before: nobody else would bring a wiped disk back
        self._wait()
        machine = self._rng.choice(list(self._cluster.machines.values()))
        if machine.node is None or not machine.node.membership.members:
            return
        change = self._change(machine.node.membership)
        if change is not None:
            self._cluster.note("", "operator wants", change)
            self._proposed = max(self._proposed, change.version)  # the replica may take it much later
            machine.happens(lambda node: self._propose(machine, node, change))

    def _propose(self, machine: SimulatedMachine, node: Node, change: Membership) -> None:
        self._cluster.write(machine, node, Reconfigure(change), lambda _: None)

    def _change(self, membership: Membership) -> Membership | None:
        if self._wiped is not None and not self._is_back(self._wiped):
            return self._bring_back(membership, self._wiped)
        self._wiped = None
        ways: tuple[Callable[[Membership], Membership | None], ...] = (
            self._add, self._remove, self._promote, self._demote, self._wipe
        )  # fmt: skip
        return self._rng.choice(ways)(membership)

    def _add(self, membership: Membership) -> Membership | None:
        absent = [
            name for name in self._cluster.machines if membership.get(name) is None and self._knows(name, membership)
        ]
        if not absent:
            return None
        joining = self._rng.random() < 0.7
        return membership.changed(Member(self._rng.choice(absent), "", MemberRole.LEARNER, joining=joining))

    def _remove(self, membership: Membership) -> Membership | None:
        member = self._rng.choice(membership.members)
        possible = self._can_spare(membership, member) and self._others_know(membership, member)
        return membership.without(member.name) if possible else None

    def _promote(self, membership: Membership) -> Membership | None:
        learners = [member for member in membership.members if member.role is MemberRole.LEARNER]
        return membership.changed(replace(self._rng.choice(learners), joining=True)) if learners else None

    def _demote(self, membership: Membership) -> Membership | None:
        member = self._rng.choice(membership.members)
        if not self._can_spare(membership, member):
            return None
        return membership.changed(replace(member, role=MemberRole.LEARNER, joining=False))

    def _wipe(self, membership: Membership) -> Membership | None:
        """Only what the cluster knows, or nobody could tell it from the next disk; and not while another change is on
        its way, by which fewer voters decide than it seems."""
        member = self._rng.choice(membership.members)
        reference = self._safety.reference
        settled = membership == reference.membership and reference.in_force and membership.version >= self._proposed
        joining = any(other.joining for other in membership.members)
        if (
            not settled
            or joining
            or not self._can_lose(membership, member)
            or not self._others_know(membership, member)
        ):
            return None
        self._wiped, self._wiped_at = member.name, self._safety.reference.applied
        machine = self._cluster.machines[member.name]
        machine.wipe(damaged=self._rng.random() < 0.5)
        return self._bring_back(membership, member.name)

    def _bring_back(self, membership: Membership, name: NodeId) -> Membership | None:
        member = membership.get(name)
        incarnation = self._cluster.machines[name].incarnation
        if member is None or member.incarnation in {0, incarnation} or self._cluster.machines[name].replaces:
            return None  # it is on its way, or the leader sees to it
        return membership.changed(replace(member, role=MemberRole.LEARNER, incarnation=0, joining=True))

    def _is_back(self, name: NodeId) -> bool:
        """It votes with the data on its disk, or is a member no more, and has all that there was when its disk was
        wiped."""
        member, machine = self._safety.reference.membership.get(name), self._cluster.machines[name]
        if member is None:
            return True
        votes = member.role is not MemberRole.LEARNER and member.incarnation == machine.incarnation
        return votes and machine.node is not None and machine.durable.hard_state.chosen >= self._wiped_at

    def _can_spare(self, membership: Membership, member: Member) -> bool:
        return member.role is MemberRole.LEARNER or len(membership.voters) > FEWEST_VOTERS

    def _others_know(self, membership: Membership, leaving: Member) -> bool:
        """Everybody else is there and knows `membership`: whoever is away while all that it knows leave, one after the
        other, is reached by nobody any more."""
        nodes = [self._cluster.machines[member.name].node for member in membership.members if member != leaving]
        return all(node is not None and node.membership == membership for node in nodes)

    def _knows(self, name: NodeId, membership: Membership) -> bool:
        """It is there, and begins with nothing, or knows a member, on the disk of now: whoever comes back after all
        that it knows have left is reached by nobody."""
        node = self._cluster.machines[name].node
        if node is None or not node.membership.members:
            return node is not None
        return any(
            (known := node.view.neighbours.get(member.name)) is not None
            and known.incarnation in {0, member.incarnation}
            and member.role is not MemberRole.LEARNER
            for member in membership.members
        )

    def _can_lose(self, membership: Membership, member: Member) -> bool:
        return bool(member.incarnation) and (member.role is MemberRole.LEARNER or len(membership.voters) > 2)
