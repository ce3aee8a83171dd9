"""The checks after every step of a simulated cluster, and at its end."""

from collections import defaultdict
from collections.abc import Iterator

from kvstore.api.commands import Command, NotReconfigured, Result, unpack_batch
from kvstore.api.queries import Query
from kvstore.api.results import QueryAnswer
from paxos.messages import Accept, Accepted, Prepare, Promise
from paxos.ready import Ready
from paxos.types import ZERO, Ballot, NodeId, Slot, Time, unpack
from storage.base import StagedPage, StateWrite
from tests.simulation.answers import expected_answer, without_times
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.compactions import Compactions
from tests.simulation.machine import SimulatedMachine
from tests.simulation.model import keys_of
from tests.simulation.reference import AppliedCommand, Reference
from tests.simulation.states import check_state, check_witness


class Safety:
    """Watches a cluster: one value for each slot, and a majority of disks that holds it; promises that never go back;
    votes that rest on durable records; ballots used by one life; one lease at a time; and on every replica the state
    that the log says."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.values: dict[Slot, bytes] = {}
        self.reference = Reference(cluster.scenario.restored, cluster.scenario.kept_answers)
        self.compactions = Compactions(cluster.scenario, self.reference)
        self.reads = 0
        """Answers that were compared with the log."""
        self.partial = 0
        """Steps after which an entry was applied in part."""
        self.installs = 0
        """States of peers that took the place of one's own; each was compared with the log."""
        self._promised: dict[NodeId, Ballot] = {}
        self._proposed: dict[tuple[Slot, Ballot], bytes] = {}
        self._prepared: dict[Ballot, int] = {}
        self._answers: dict[NodeId, list[tuple[Query, QueryAnswer, Slot, int]]] = defaultdict(list)
        """Answers of each replica since its last step."""
        self._results: dict[NodeId, list[tuple[Command, Result]]] = defaultdict(list)
        self.writes = 0
        """Answers to writes that were compared with the log."""
        self._applied: dict[NodeId, Slot] = {}
        """The slot that each node had applied before its present step."""
        self.expired_at: dict[int, Time] = {}
        """When each lease ended because the leader said so."""
        cluster.watchers.append(self)

    @property
    def ballots(self) -> int:
        """Ballots for which somebody ran."""
        return len(self._prepared)

    def started(self, machine: SimulatedMachine) -> None:
        """Compare the state that the process has replayed with the log."""
        node = machine.node
        assert node is not None
        self._promises(machine)
        assert node.applied <= self.reference.applied, f"{machine.name} replays slots that were never chosen"
        self._applied[machine.name] = node.applied
        self._check_answers(machine)
        self._results.pop(machine.name, None)
        self._founded(machine)
        check_state(node, self.reference)
        self.compactions.started(machine)

    def wiped(self, machine: SimulatedMachine) -> None:
        """Forget the promise that was on the disk."""
        self._promised.pop(machine.name, None)

    def moved(self, machine: SimulatedMachine) -> None:
        """A lease begins only with what was handed to a node, so only that one has to be looked at."""
        node = machine.node
        if node is None or not node.replica.lease_holds(machine.clock()) or not machine.has_right_clock:
            return
        for other in self._cluster.machines.values():
            if other is not machine and other.node is not None and other.has_right_clock:
                both = other.node.replica.lease_holds(other.clock())
                assert not both, f"{machine.name} and {other.name} hold a lease at the same time"

    def answered(self, machine: SimulatedMachine, query: Query, answer: QueryAnswer) -> None:
        """To be compared when the step is over, which may be the first to apply what the answer holds."""
        assert machine.node is not None
        self._answers[machine.name].append((query, answer, machine.node.applied, machine.node.machine.history.oldest))

    def replied(self, machine: SimulatedMachine, command: Command, result: Result) -> None:
        """To be compared when the step is over, see `answered`."""
        self._results[machine.name].append((command, result))

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Everything that one step shows."""
        self._founded(machine)
        for slot, value in ready.chosen:
            self._chosen(slot, value)
        self._state(machine, ready)
        if isinstance(ready.write, StateWrite) and ready.write.staged is not None:
            self._staged(machine, ready.write.staged)
        self._messages(machine, ready)
        self._promises(machine)
        self._check_answers(machine)
        self._check_results(machine)

    def _check_answers(self, machine: SimulatedMachine) -> None:
        """Compare the answers since the last step. A process that died in the midst of a step may have been the first
        to show a slot; such answers are left out."""
        for query, answer, slot, oldest in self._answers.pop(machine.name, ()):
            if slot <= self.reference.applied:
                self._answer(query, answer, slot, oldest)
                self.reads += 1

    def _answer(self, query: Query, answer: QueryAnswer, slot: Slot, oldest: int) -> None:
        """There is one right answer to each question at each slot, by what is compacted, which is compared by
        itself."""
        expected = expected_answer(query, self.reference, slot, oldest)
        assert without_times(answer) == expected, (
            f"{query!r} was answered at slot {slot} by {answer}, not by {expected}"
        )

    def _check_results(self, machine: SimulatedMachine) -> None:
        """A write is answered in the step that applies it, with the result that the log gives it."""
        node = machine.node
        assert node is not None
        expected: list[AppliedCommand] = []
        results = self._results.pop(machine.name, ())
        for slot in range(self._applied[machine.name] + 1, node.applied + 1) if results else ():
            expected += [each for each in self.reference.results.get(slot, []) if each.origin == node.origin]
        for command, result in results:
            match = next((each for each in expected if each.command == command and _same(each.result, result)), None)
            assert match is not None, f"{command} was answered by {result}; {machine.name} applied {expected}"
            expected.remove(match)
        self.writes += len(results)
        self._applied[machine.name] = node.applied
        if not node._checkpointer.applier.membership_only:
            self.compactions.stepped(machine)

    def _founded(self, machine: SimulatedMachine) -> None:
        assert machine.node is not None
        for version in machine.node.machine.memberships:
            if version.membership.version == 0:
                known = self.reference.founded(version.membership)
                assert known == version.membership, f"{machine.name} founded a second cluster: {version.membership}"

    def _chosen(self, slot: Slot, value: bytes) -> None:
        known = self.values.get(slot)
        assert known is None or known == value, f"two values were chosen for slot {slot}"
        if known is not None:
            return
        holders = {disk for machine in self._cluster.machines.values() for disk in self._holders(machine, slot, value)}
        voters = self.reference.voters(slot)
        assert 2 * len(voters & holders) > len(voters), f"slot {slot} was chosen and only {sorted(holders)} hold it"
        assert slot == self.reference.applied + 1, f"slot {slot} was applied before the one that comes before it"
        self.values[slot] = value
        self.reference.apply(value)
        for lease in self.reference.expired.keys() - self.expired_at.keys():
            self.expired_at[lease] = self._cluster.world.now

    def _staged(self, machine: SimulatedMachine, staged: StagedPage) -> None:
        if staged.page.progress is not None:
            self.installs += 1
            self._check_install(machine)

    def _check_install(self, machine: SimulatedMachine) -> None:
        assert machine.node is not None
        check_state(machine.node, self.reference)
        self.compactions.started(machine)

    def _holders(self, machine: SimulatedMachine, slot: Slot, value: bytes) -> Iterator[tuple[NodeId, int]]:
        """The disks of `machine`, those that are lost, too, that hold `value`. Each is named by its incarnation, and by
        0, which stands for the data of a voter that nobody enrolled yet."""
        for disk in (machine.durable, *machine.lost):
            # what is truncated rests in the state, which is compared by itself
            held = disk.read(slot, slot, 0) if slot > disk.hard_state.truncation.slot else []
            if slot <= disk.hard_state.truncation.slot or (held and held[0].value == value):
                yield machine.name, disk.recovered().identity.incarnation
                yield machine.name, 0

    def _state(self, machine: SimulatedMachine, ready: Ready) -> None:
        """The keys that were just changed, the position and the sums are those of the log; those of an entry that is
        applied in part are those before it."""
        node = machine.node
        assert node is not None
        if node._checkpointer.applier.membership_only:
            check_witness(node, self.reference)
            return
        shown = node.machine
        state = self.reference.state(node.applied)
        assert shown.shown_position == state.position, f"{machine.name} is at another position"
        if not node.applies_entry:
            sums = (shown.position, shown.digest, shown.size_bytes)
            assert sums == state[:3], f"{machine.name} has the sums {sums}, and slot {node.applied} has {state[:3]}"
        self.partial += node.applies_entry
        if not (ready.chosen or node.applies_entry) and node.applied == self._applied[machine.name]:
            return
        values = [self.values[node.applied]] if node.applied in self.values else []
        for value in values + [value for _, value in ready.chosen]:
            for payload in unpack(value):
                for command in unpack_batch(payload).commands:
                    for key in keys_of(command, self.reference.model.keys_ever):
                        expected = self.reference.record(key, node.applied)
                        assert shown.shown(key) == expected, f"{machine.name} differs at {key!r}"

    def _messages(self, machine: SimulatedMachine, ready: Ready) -> None:
        durable = machine.durable
        promised = durable.hard_state.promised
        for envelope in ready.messages:
            message = envelope.message
            if isinstance(message, Promise | Accepted | Prepare):
                assert message.ballot <= promised, f"{machine.name} sent {message} before its promise is durable"
            if isinstance(message, Accepted) and message.slot > durable.hard_state.truncation.slot:
                held = durable.read(message.slot, message.slot, 0)
                assert held, f"{machine.name} voted for slot {message.slot} before it is durable"
                assert held[0].ballot >= message.ballot, f"{machine.name} voted for a ballot that is not durable"
            elif isinstance(message, Prepare):
                life = self._prepared.setdefault(message.ballot, machine.life)
                assert life == machine.life, f"{machine.name} uses ballot {message.ballot} in two lives"
            elif isinstance(message, Accept):
                value = self._proposed.setdefault((message.slot, message.ballot), message.value)
                assert value == message.value, f"two values were proposed for slot {message.slot} under one ballot"

    def _promises(self, machine: SimulatedMachine) -> None:
        promised = machine.durable.hard_state.promised
        assert promised >= self._promised.get(machine.name, ZERO), f"{machine.name} lowered its promise"
        self._promised[machine.name] = promised


def same_state(cluster: SimulatedCluster, reference: Reference) -> None:
    """Every member has applied all of the log, and has the state that it says; and so has its next process."""
    nodes = [node for node in cluster.members() if node is not None]
    applied = {node.id: node.applied for node in nodes}
    assert set(applied.values()) == {reference.applied}, f"replicas differ: {applied}"
    for node in nodes:
        check_state(node, reference)


def _same(expected: Result, result: Result) -> bool:
    """The model knows no messages to operators."""
    if isinstance(expected, NotReconfigured):
        return isinstance(result, NotReconfigured)
    return expected == result
