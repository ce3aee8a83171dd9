"""Whether each step that needs a majority has one, by the messages and disks of a simulated cluster, and not by what
replicas believe. A majority that is too small is a violation at once, and not only when another one misses it."""

from collections import defaultdict

from kvstore.api.membership import Member, MemberRole, Membership
from paxos.messages import Accept, FoundingState, Prepare, PreVote, PreVoteReply, Promise, ReleaseLease
from paxos.ready import Ready
from paxos.types import ZERO, Ballot, NodeId, PValue, Slot
from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import Disk as SimulatedDisk
from tests.simulation.machine import SimulatedMachine
from tests.simulation.rarity import StepWatcher

ALPHA = 32
"""A change of the members decides the slots from so many behind its own on."""
Disk = tuple[NodeId, int]
"""A replica and the incarnation of its data."""


class Told(dict[Slot, PValue]):
    """What a promise told, page by page."""

    whole = False
    """The last page has left."""


class Quorums(StepWatcher):
    """Checks of steps. A leader proposes with the promises of a majority of the membership that decides the slot. Of
    its values, what these have accepted allows each (rules 8 to 10, 27, 28). Its lease rests on grants of a majority of
    each membership that decides an open slot (rules 18, 27). A witness neither leads nor is asked to (rule 29). A new
    cluster has the agreement of all its members (rule 30)."""

    def __init__(self, cluster: SimulatedCluster, safety: Safety) -> None:
        """Begin to watch, after `safety`."""
        self._cluster = cluster
        self._safety = safety
        self._told: defaultdict[Ballot, dict[Disk, Told]] = defaultdict(dict)
        self._proposed: set[tuple[Ballot, Slot]] = set()
        self._willing: defaultdict[tuple[NodeId, int], dict[NodeId, int]] = defaultdict(dict)
        """For each attempt of a candidate, the rounds that its voters told they have promised."""
        self._is_founded = False
        cluster.watchers.append(self)

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Look at what leaves, and at the lease."""
        self._founded(machine)
        if ready.write is not None and ready.write.promise is not None and ready.write.promise.node == machine.name:
            self._above_those_told(machine, ready.write.promise)
        for envelope in ready.messages:
            match envelope.message:
                case Accept() as accept:
                    self._propose(machine, accept)
                case Promise() as promise:
                    self._promise(machine, promise)
                case Prepare() as prepare:
                    self._prepare(machine, prepare)
                case PreVote(nonce=nonce) if nonce:
                    self._leads(machine, machine.name)
                case ReleaseLease(successor=successor) if successor:
                    self._leads(machine, successor)
                case PreVoteReply() as reply:
                    self._reply(machine, envelope.to, reply)
                case FoundingState(members=members) if members:
                    agreed = _agreed(machine.durable)
                    assert agreed == members, f"{machine.name} tells that it has agreed to {members}, not to {agreed}"
                case _:
                    pass
        self._lease(machine)
        self._members(machine)

    def covers(self, ballot: Ballot, membership: Membership) -> bool:
        """Whether a majority of the voters of `membership` have promised `ballot`."""
        voters = _voters(membership)
        promised = [disk for disk, told in self._told[ballot].items() if told.whole and _votes(disk, voters)]
        return 2 * len(promised) > len(voters)

    def _members(self, machine: SimulatedMachine) -> None:
        """Nobody sees a change before its entry is complete (rule 27)."""
        node = machine.node
        assert node is not None
        known = tuple(node.machine.memberships[-2:])
        right = self._safety.reference.state(node.applied).memberships
        assert known in {(), right}, f"{machine.name} knows the members {known}, and slot {node.applied} has {right}"

    def _founded(self, machine: SimulatedMachine) -> None:
        """Every founding member has agreed, with the same data (rule 30)."""
        assert machine.node is not None
        first = next(iter(machine.node.machine.memberships), None)
        if self._is_founded or first is None:
            return
        self._is_founded = True
        for member in first.membership.members:
            other = self._cluster.machines[member.name]
            disks = {disk.recovered().identity.incarnation: disk for disk in (other.durable, *other.lost)}
            names = tuple((each.name, each.incarnation) for each in first.membership.members)
            agreed = _agreed(disks[member.incarnation])
            assert agreed == names, f"{machine.name} founds a cluster of {names}, and {member.name} agreed to {agreed}"

    def _prepare(self, machine: SimulatedMachine, prepare: Prepare) -> None:
        """A candidate has promised its ballot to itself."""
        self._leads(machine, machine.name)
        promises, disk = self._told[prepare.ballot], _disk(machine)
        if disk not in promises:
            promises[disk] = told = Told()
            told.whole = True
            last = machine.durable.hard_state.last
            while (first := max(prepare.from_slot, max(told, default=0) + 1)) <= last:
                page = machine.durable.read(first, last, 1 << 20)
                told.update((pvalue.slot, pvalue) for pvalue in page if pvalue.ballot < prepare.ballot)
                if not page or page[-1].slot not in told:
                    break

    def _reply(self, machine: SimulatedMachine, candidate: NodeId, reply: PreVoteReply) -> None:
        if reply.willing:
            replies = self._willing[candidate, reply.nonce]
            replies[machine.name] = min(reply.promised.round, replies.get(machine.name, reply.promised.round))

    def _above_those_told(self, machine: SimulatedMachine, ballot: Ballot) -> None:
        """The round is above what the voter told without which the candidate may not run, unless it asked nobody
        (rule 2)."""
        node = machine.node
        assert node is not None
        told = self._willing.get((machine.name, node.replica._roles.attempts), {})
        alone = any(len(version.membership.voters) < 2 for version in node.machine.memberships)
        assert not told or alone or min(told.values()) < ballot.round, (
            f"{machine.name} runs under {ballot}, and was told of the promises {told}"
        )

    def _promise(self, machine: SimulatedMachine, promise: Promise) -> None:
        told = self._told[promise.ballot].setdefault(_disk(machine), Told())
        for pvalue in promise.accepted:
            told.setdefault(pvalue.slot, pvalue)
        told.whole |= not promise.next_slot

    def _propose(self, machine: SimulatedMachine, accept: Accept) -> None:
        """An Accept leaves for the first time."""
        ballot, slot = accept.ballot, accept.slot
        if (ballot, slot) in self._proposed:
            return
        self._proposed.add((ballot, slot))
        node = machine.node
        assert node is not None
        assert slot <= node.applied + ALPHA, f"{machine.name} proposes slot {slot} and has applied {node.applied}"
        voters = _voters(self._safety.reference.membership_at(slot))
        own = _disk(machine)
        promises = {disk: told for disk, told in self._told[ballot].items() if told.whole and _votes(disk, voters)}
        if own not in self._told[ballot] and _votes(own, voters):
            promises[own] = Told()  # it is alone and sent no Prepare
        assert 2 * len(promises) > len(voters), (
            f"{machine.name} proposes slot {slot} under {ballot}: {sorted(promises)} have promised, {voters} vote"
        )
        bests = [told[slot].ballot for told in promises.values() if slot in told and told[slot].value == accept.value]
        best = max(bests, default=ZERO)
        allowing = [disk for disk, told in promises.items() if slot not in told or told[slot].ballot <= best]
        assert 2 * len(allowing) > len(voters), (
            f"{machine.name} proposes another value for slot {slot} under {ballot} than what {sorted(promises)} "
            "have accepted"
        )

    def _leads(self, machine: SimulatedMachine, name: NodeId) -> None:
        assert machine.node is not None
        member = machine.node.membership.get(name)
        assert member is None or member.role is not MemberRole.WITNESS, f"{machine.name} lets the witness {name} lead"

    def _lease(self, machine: SimulatedMachine) -> None:
        node = machine.node
        assert node is not None
        if not self._cluster.scenario.clocks_keep_the_bound or (node.replica.lease_until or 0) <= machine.clock():
            return
        reference = self._safety.reference
        if node.replica.lease_holds(machine.clock()):
            assert node.replica.chosen >= reference.applied, (
                f"{machine.name} may read under its lease, and knows {node.replica.chosen} slots of {reference.applied}"
            )
        for membership in reference.memberships_between(node.replica.chosen + 1, node.applied + ALPHA):
            voters = _voters(membership)
            grants = [voter.name for voter in voters if self._grants(voter, machine)]
            assert 2 * len(grants) > len(voters), (
                f"{machine.name} holds a lease of {grants}, and {[voter.name for voter in voters]} vote"
            )

    def _grants(self, voter: Member, leader: SimulatedMachine) -> bool:
        """Whether `voter` can promise to nobody else: it granted a lease, or will wait for one after its restart, or
        lost its disk, with which it voted."""
        machine = self._cluster.machines[voter.name]
        if machine.node is None or not _votes(_disk(machine), [voter]):
            return True
        grant = machine.node.replica._acceptor.grant
        return grant.until > machine.clock() and grant._ballot.node in {"", leader.name}


def _agreed(disk: SimulatedDisk) -> tuple[Disk, ...]:
    """The founding members to which the owner of `disk` has agreed."""
    founding = disk.hard_state.founding
    return founding.members if founding is not None else ()


def _disk(machine: SimulatedMachine) -> Disk:
    return machine.name, machine.incarnation


def _voters(membership: Membership) -> list[Member]:
    return [member for member in membership.members if member.role is not MemberRole.LEARNER]


def _votes(disk: Disk, voters: list[Member]) -> bool:
    """Whether the votes of this disk count."""
    return any(disk[0] == voter.name and voter.incarnation in {0, disk[1]} for voter in voters)
