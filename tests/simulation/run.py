"""One simulated run of a scenario: faults, calm, and what must hold at the end."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from kvstore.replica.node import Node
from kvstore.replica.snapshot_receive import RETRY_MS
from paxos.types import MS, NodeId
from tests.simulation.checkers import Safety, same_state
from tests.simulation.clients import KINDS, OperationHistory, SimulatedClient
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.drills import DRILLS
from tests.simulation.operator import Operator
from tests.simulation.probers import Prober
from tests.simulation.quorums import Quorums
from tests.simulation.rarities import Rarities
from tests.simulation.scenario import Scenario, draw, moment
from tests.simulation.tenants import TTLS_MS, Tenancy, Tenant
from tests.simulation.trace import EventTrace
from tests.simulation.watches import SimulatedWatch, WatchCount
from tests.torture.linearizability import Operation, Verdict, check

UNDER_LEASE = {"get", "list"}
"""Reads that trust the clock of the leader."""
PROBE_MS = 50
"""How often is looked whether everybody recovered."""


class Summary(msgspec.Struct):
    """What happened in a run, or in many: what never happens is not tested."""

    runs: int = 0
    simulated_ms: int = 0
    steps: int = 0
    operations: int = 0
    slots: int = 0
    reads: int = 0
    writes: int = 0
    ballots: int = 0
    installs: int = 0
    partial: int = 0
    """Steps after which a log entry was applied in part."""
    changes: int = 0
    leases: int = 0
    """That were over because the leader said so."""
    events: int = 0
    """Events of watches that were compared with the log."""
    compacted: int = 0
    """Watches that were told that their events are compacted."""
    inside: int = 0
    """Pages of events that began inside a revision."""
    frames: Counter[str] = msgspec.field(default_factory=Counter)
    struck: Counter[str] = msgspec.field(default_factory=Counter)
    timing: Counter[str] = msgspec.field(default_factory=Counter)
    """Pauses within calls and deaths in them, changes of the rate of clocks, starts with other settings."""

    def add(self, other: "Summary") -> None:
        """Count another run in."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Run:
    """A cluster under a scenario, with its clients and checkers."""

    def __init__(self, scenario: Scenario, trace: EventTrace | None = None) -> None:
        self.scenario = scenario
        self.cluster = SimulatedCluster(scenario, trace)
        self.safety = Safety(self.cluster)
        Quorums(self.cluster, self.safety)
        self.history = OperationHistory()
        self.tenancy = Tenancy()
        self.watch_count = WatchCount()
        self.watches = [
            SimulatedWatch(self.cluster, self.safety, f"w{number}", self.watch_count)
            for number in range(scenario.watches)
        ]
        self.operator = Operator(self.cluster, self.safety) if scenario.changes_ms else None
        self.rarities = Rarities(self.cluster, self.history)

    def run(self) -> Summary:
        """From the first fault to the last check. Raises AssertionError or InvariantError on any violation."""
        try:
            if self.scenario.drill:
                DRILLS[self.scenario.drill](self.scenario.seed, self.cluster.trace)
            return self._run()
        finally:
            self.cluster.close()

    def _run(self) -> Summary:
        scenario, cluster = self.scenario, self.cluster
        clients = [
            SimulatedClient(cluster, f"c{number}", self.history, kinds=self._right(KINDS))
            for number in range(scenario.clients)
        ]
        tenants = [Tenant(cluster, f"t{number}", self.tenancy) for number in range(scenario.tenants)]
        probers = [Prober(cluster, f"p{number}") for number in range(scenario.probers)]
        cluster.world.run(moment(scenario.faulty_ms))
        for client in clients:
            client.stopped = True
        for tenant in tenants:
            tenant.stopped = True
        for prober in probers:
            prober.stopped = True
        if self.operator is not None:
            self.operator.stopped = True
        self.rarities.stop()
        self._await_founding()
        cluster.heal(scenario.core)
        clients += self._recover()
        self._let_leases_end()
        if scenario.core:
            cluster.heal()
            self._pass_ms(scenario.settle_ms)
        self._catch_up()
        same_state(cluster, self.safety.reference)
        self._finish_watches()
        self._restart_all()
        self.history.close()
        self._check_history()
        summary = self._summary(clients)
        self._lose_majority()
        return summary

    def _right(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """Those kinds of requests that have one order in this run: reads under a lease may be old when clocks stand
        still, and are compared with the log only (see `Prober`)."""
        return (
            kinds if self.scenario.clocks_keep_the_bound else tuple(kind for kind in kinds if kind not in UNDER_LEASE)
        )

    def _await_founding(self) -> None:
        """A cluster is founded only while all founding members are there."""
        if self.cluster.is_founded:
            return
        self.cluster.heal()
        due = self.cluster.world.now + moment(self.scenario.recovery_ms)
        while not self.cluster.is_founded:
            assert self.cluster.world.now < due, "the cluster is never founded, although all members are there"
            self._pass_ms(PROBE_MS)

    def _finish_watches(self) -> None:
        """Whoever watches sees everything up to the end."""
        rng = self.scenario.rng("last watch")
        machines = [self.cluster.machines[node.id] for node in self.cluster.members() if node is not None]
        for watch in self.watches:
            watch.stopped = True
            watch.finish(rng.choice(machines))

    def _restart_all(self) -> None:
        """Whoever starts again has the state that it had: a start is compared with the log, see `Safety.started`."""
        for node in self.cluster.members():
            if node is not None:
                self.cluster.machines[node.id].crash()
                self.cluster.machines[node.id].start()

    def _lose_majority(self) -> None:
        """Empty the disks of a majority: nobody answers any more, and no second cluster is founded (rule 30)."""
        cluster, rng = self.cluster, self.scenario.rng("majority")
        voters = sorted(self.safety.reference.membership.voters)
        victims = rng.sample(voters, min(len(voters), len(voters) // 2 + rng.choice((1, 1, 2))))
        for name in victims:
            cluster.machines[name].wipe(damaged=False)
        founders = [cluster.machines[name].node for name in self.scenario.names if name not in victims]
        if not any(node is not None and node.view.known for node in founders):
            return  # only members that were added later have the data, and the settings of the victims do not name them
        self._pass_ms(self.scenario.lease_ms + self.scenario.settle_ms)
        probes = [
            SimulatedClient(cluster, f"{name}/late", OperationHistory(), machines=[machine], kinds=("put", "get"))
            for name, machine in cluster.machines.items()
        ]
        self._pass_ms(2 * self.scenario.settle_ms)
        assert not any(probe.answered for probe in probes), f"requests are answered, though {victims} lost their data"
        for name in victims:
            node = cluster.machines[name].node
            assert node is not None
            assert not node.view.known, f"{name} lost its data, and has a membership again"

    def _recover(self) -> list[SimulatedClient]:
        """Each replica of the core must take a write and a read in time, and then keep its leader."""
        cluster = self.cluster
        probes = [
            SimulatedClient(cluster, f"{name}/{kind}", self.history, machines=[cluster.machines[name]], kinds=(kind,))
            for name in self._core
            for kind in self._right(("put", "get", "quorum"))
        ]
        due = cluster.world.now + moment(self.scenario.recovery_ms)
        while silent := [probe.name for probe in probes if not probe.answered and probe.machines[0].name in self._core]:
            assert cluster.world.now < due, f"no progress after the faults stopped: {', '.join(silent)}"
            self._pass_ms(PROBE_MS)
        for probe in probes:
            probe.stopped = True
        while not self._kept_its_leader():
            assert cluster.world.now < due, "changes of the members never end"
        return probes

    def _kept_its_leader(self) -> bool:
        """Check that the core keeps its leader for `settle_ms`. Return False when a change of the members was under way
        meanwhile: a replica may still propose one that was requested before the faults ended."""
        version = self.safety.reference.membership.version
        if self._members_move():
            self._pass_ms(PROBE_MS)
            return False
        self._pass_ms(self.scenario.quiet_ms)
        before = self._leader_changes()
        self._pass_ms(self.scenario.settle_ms)
        if self.safety.reference.membership.version != version:
            return False
        assert self._leader_changes() == before, "the core changed its leader although nothing was wrong with it"
        return True

    def _let_leases_end(self) -> None:
        """Nobody keeps them alive any more."""
        due = self.cluster.world.now + moment(self.scenario.recovery_ms + TTLS_MS[-1])
        nodes = [self.cluster.machines[name].node for name in self._core]
        while any(_lives(node) for node in nodes if node is not None):
            assert self.cluster.world.now < due, "a lease that nobody keeps alive does not end"
            self._pass_ms(PROBE_MS)
        self.tenancy.check(self.safety.expired_at)

    def _members_move(self) -> bool:
        """True while somebody joins, or a change of the members is not in force: either may change the leader."""
        reference = self.safety.reference
        return not reference.in_force or any(member.joining for member in reference.membership.members)

    def _catch_up(self) -> None:
        """Wait for members that lag: in pages as small as one slot, or by snapshots, of which the first may come from a
        member that lags as well."""
        due = self.cluster.world.now + moment(5 * len(self.safety.values) + 2 * RETRY_MS)
        while self.cluster.world.now < due and any(
            node is not None and node.applied < self.safety.reference.applied for node in self.cluster.members()
        ):
            self._pass_ms(PROBE_MS)

    @property
    def _core(self) -> Sequence[NodeId]:
        return self.scenario.core or [node.id for node in self.cluster.members() if node is not None]

    def _leader_changes(self) -> list[int]:
        nodes = [self.cluster.machines[name].node for name in self._core]
        return [node.stats.leader_changes for node in nodes if node is not None]

    def _check_history(self) -> None:
        """Every acknowledged write is in the log that the last reads see, and all answers fit one order."""
        for number in range(self.scenario.keys):
            key, now = b"k%d" % number, self.cluster.world.now
            record = self.safety.reference.record(key, self.safety.reference.applied)
            last = Operation("get", key, record.value if record is not None else None, now + 1, now + 2)
            self.history.operations.append(last)
        verdict, key_ = check(self.history.operations)
        assert verdict is Verdict.LINEARIZABLE, f"the history of {key_!r} is {verdict.value}"

    def _pass_ms(self, duration_ms: int) -> None:
        self.cluster.world.run(self.cluster.world.now + moment(duration_ms))

    def _summary(self, clients: list[SimulatedClient]) -> Summary:
        cluster = self.cluster
        return Summary(
            runs=1,
            simulated_ms=cluster.world.now // MS,
            steps=cluster.steps,
            operations=sum(client.answered for client in clients),
            slots=len(self.safety.values),
            reads=self.safety.reads,
            writes=self.safety.writes,
            ballots=self.safety.ballots,
            installs=self.safety.installs,
            partial=self.safety.partial,
            changes=self.safety.reference.changes,
            leases=len(self.safety.expired_at),
            **msgspec.structs.asdict(self.watch_count),
            frames=cluster.network.count,
            struck=cluster.struck,
            timing=cluster.count,
        )


def _lives(node: Node) -> bool:
    """Whether it knows a lease of a tenant."""
    return any(lease.terms.ttl_ms <= TTLS_MS[-1] for lease in node.machine.lease_index.leases.values())


def simulate(seed: int) -> Summary:
    """Run the scenario of `seed`."""
    return Run(draw(seed)).run()
