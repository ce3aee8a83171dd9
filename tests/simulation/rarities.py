"""Actors that make rare events likely. Each seed switches each of them on or off (swarm testing), so that a run is full
of some of them and free of the others."""

from functools import partial

from kvstore.api.commands import (
    AnswerExpired,
    ExpireLease,
    GrantLease,
    Idempotent,
    LeaseGranted,
    Put,
    PutResult,
    RecordLeader,
    Result,
    unpack_batch,
)
from kvstore.api.errors import Refused
from kvstore.api.queries import Consistency
from kvstore.replica.node import Node
from kvstore.state_machine.lease_index import LEADER_KEY
from paxos.messages import Heartbeat
from paxos.ready import Ready
from paxos.types import unpack
from tests.simulation.clients import SESSION_MS, OperationHistory
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.conduct import ConductWatcher
from tests.simulation.held import HighPromises, LateAcks, LateIndexes, LostVotes, SnapshotRelay
from tests.simulation.machine import SimulatedMachine
from tests.simulation.network import Link, links
from tests.simulation.partial_entries import BoundLeases, PartialEntries
from tests.simulation.rarity import Rarity, StepWatcher
from tests.simulation.scenario import DISRUPTIONS, StrikeKind, moment

BURST = 5
"""Most overlapping reads of a burst."""
SKIPPED, REPEATED = 3, 8
"""Most numbers that a new request skips at first, and most numbers of the last requests that are repeated."""
AMBUSH_MS = (0.5, 5)
"""Time between a renewal of the lease and an ambush."""
AMBUSH_UP_MS = (0.05, 1)
"""Time after which the victims of an ambush start again."""


class BurstReader(Rarity):
    """Overlapping reads of both kinds at one replica, so that a read begins while the read index of another one is on
    its way. No answer is older than what anybody was told before its read began."""

    def act(self) -> None:
        """Begin some reads."""
        machine = self.anyone()
        for _ in range(self.rng.randint(1, BURST)):
            consistency = self.rng.choice((Consistency.LINEARIZABLE, Consistency.QUORUM))
            self.cluster.world.between_ms(self.rng, (0, 10), partial(self._read, machine, consistency))

    def _read(self, machine: SimulatedMachine, consistency: Consistency) -> None:
        if not self.stopped:
            machine.happens(self.read(machine, consistency))


class Repeater(Rarity):
    """Numbered requests of one lease, several under way, which overtake and repeat each other. A number is answered
    alike each time, as long as its answer is kept."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._lease = 0
        self._highest = 0
        self._answers: dict[int, PutResult] = {}
        super().__init__(cluster, history, longest_ms)

    def act(self) -> None:
        """Send a new number, or one of the last again."""
        if not self._lease:
            self.anyone().happens(lambda node: node.write(GrantLease(SESSION_MS), self._granted))
            return
        number = self._highest - self.rng.randrange(-SKIPPED, REPEATED)
        if number < 1:
            return
        self._highest = max(self._highest, number)
        value = b"%d" % number
        request = Idempotent(self._lease, number, value, Put(b"r%d" % (number % 3), value))
        self.anyone().happens(lambda node: node.write(request, partial(self._answered, number)))

    def _granted(self, answer: Result | Refused) -> None:
        if isinstance(answer, LeaseGranted):
            self._lease = self._lease or answer.lease

    def _answered(self, number: int, answer: Result | Refused) -> None:
        if isinstance(answer, PutResult):
            known = self._answers.setdefault(number, answer)
            assert known == answer, f"request {number} was answered with {answer} after {known}"
        else:
            assert isinstance(answer, Refused | AnswerExpired), f"request {number} was answered with {answer}"


class FormerLeader(Rarity):
    """Commands of a leader of before, which come late: it expires leases as they are now, and records itself. None of
    them has an effect."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._leaders: dict[int, str] = {}
        """Each leader that was recorded, by the version of the record."""
        super().__init__(cluster, history, longest_ms)

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Remember who is recorded."""
        record = machine.node.machine.internal(LEADER_KEY) if machine.node is not None else None
        if record is not None:
            self._leaders[record.version] = record.value.decode()

    def act(self) -> None:
        """Send one of them."""
        self.anyone().happens(self._submit)

    def _submit(self, node: Node) -> None:
        record = node.machine.internal(LEADER_KEY)
        former = [version for version in self._leaders if record is not None and version < record.version]
        if not former:
            return
        version = self.rng.choice(former)
        leases = list(node.machine.lease_index.leases.items())
        if leases and self.rng.random() < 0.7:
            number, lease = self.rng.choice(leases)
            node.write(ExpireLease(number, lease.version, self._leaders[version]), lambda _: None)
        else:
            node.write(RecordLeader(self._leaders[version], version - 1), lambda _: None)


class Ambush(Rarity):
    """Just after the leader has renewed its lease, it is cut off, and all others die at once. They start
    again within the lease, of which they know nothing then."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._armed = False
        self._struck_at = -moment(2 * cluster.scenario.lease_ms)
        super().__init__(cluster, history, longest_ms)

    def act(self) -> None:
        """Strike with the next renewal, unless the victims of the last ambush may still wait."""
        self._armed = self.cluster.world.now >= self._struck_at + moment(1.5 * self.cluster.scenario.lease_ms)

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Wait for a renewal, and until it is granted."""
        node = machine.node
        assert node is not None
        renews = self._armed and any(isinstance(envelope.message, Heartbeat) for envelope in ready.messages)
        if renews and node.replica.lease_holds(machine.clock()):
            self._armed = False
            self.cluster.world.between_ms(self.rng, AMBUSH_MS, partial(self._strike, machine))

    def _strike(self, leader: SimulatedMachine) -> None:
        if self.stopped or leader.node is None:
            return
        self._struck_at = self.cluster.world.now
        cut = links(StrikeKind.CUT, [leader.name], list(self.cluster.machines))
        self.cluster.network.cut(cut)
        self.cluster.world.after_ms(self.cluster.scenario.lease_ms, partial(self._mend, cut))
        for member in leader.node.membership.members:
            machine = self.cluster.machines[member.name]
            if machine is not leader and machine.node is not None:
                machine.crash()
                self.cluster.world.between_ms(self.rng, AMBUSH_UP_MS, partial(self._start, machine))

    def _mend(self, cut: list[Link]) -> None:
        if not self.stopped:
            self.cluster.network.mend(cut)

    def _start(self, machine: SimulatedMachine) -> None:
        if not self.stopped:
            machine.start()


class Settlements(StepWatcher):
    """Check that no batch settles a batch that its origin still waits for: it would be refused if it came later."""

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Look at the batches that the replica has applied, those of its own."""
        node = machine.node
        assert node is not None
        oldest = next(iter(node._proposals._sent), None)
        for _, value in ready.chosen:
            for payload in unpack(value):
                batch = unpack_batch(payload)
                own = batch.origin == node.origin and batch.boot == node._boot
                assert not own or oldest is None or batch.settled_below <= oldest, (
                    f"batch {batch.sequence} of {node.id} settles batch {oldest}, which is under way"
                )


ACTORS: dict[str, type[Rarity]] = {
    "bursts": BurstReader,
    "repeats": Repeater,
    "former leaders": FormerLeader,
    "ambushes": Ambush,
    "late indexes": LateIndexes,
    "late acks": LateAcks,
    "lost votes": LostVotes,
    "high promises": HighPromises,
    "snapshot relays": SnapshotRelay,
    "partial entries": PartialEntries,
    "bound leases": BoundLeases,
}


class Rarities:
    """The actors of a run, and the check that needs none."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory) -> None:
        scenario = cluster.scenario
        cluster.watchers.append(Settlements())
        ConductWatcher(cluster)
        longest_ms = {"former leaders": 300.0, "partial entries": 300.0, "bound leases": 100.0}
        longest_ms |= dict.fromkeys(DISRUPTIONS, scenario.faulty_ms / 10)
        self._actors = [
            ACTORS[name](cluster, history, longest_ms.get(name, 2 * scenario.think_ms)) for name in scenario.rarities
        ]

    def stop(self) -> None:
        """Let nothing more happen."""
        for actor in self._actors:
            actor.stopped = True
