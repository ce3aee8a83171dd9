"""A simulated cluster that is told what to do, for tests that tell a story."""

from kvstore.api.commands import Put, Result
from kvstore.api.errors import Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.simulation.scenario import Scenario, moment


class Story:
    """A cluster told what to do, with writes and reads at chosen replicas."""

    def __init__(self, seed: int = 1, nodes: int = 3) -> None:
        self.cluster = SimulatedCluster(Scenario(seed=seed, nodes=nodes))
        self.safety = Safety(self.cluster)
        self.machines = self.cluster.machines

    def run_ms(self, duration_ms: float) -> None:
        """Let time pass."""
        self.cluster.world.run(self.cluster.world.now + moment(duration_ms))

    def put(self, name: str, key: bytes, value: bytes) -> list[Result | Refused]:
        """Write at a replica; the answer will be in the list."""
        answers: list[Result | Refused] = []
        self.machines[name].happens(lambda node: node.write(Put(key, value), answers.append))
        return answers

    def get(
        self, name: str, key: bytes, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> list[ReadAnswer | Refused]:
        """Read at a replica; the answer will be in the list."""
        answers: list[ReadAnswer | Refused] = []
        self.machines[name].happens(lambda node: node.read(key, consistency, answers.append))
        return answers

    def sent(self, kind: str) -> int:
        """Messages of a kind that all replicas sent."""
        return sum(machine.node.stats.sent[kind] for machine in self.machines.values() if machine.node is not None)

    def leader(self) -> SimulatedMachine:
        """The one that leads."""
        leader = self.cluster.leader()
        assert leader is not None, "nobody leads"
        return leader
