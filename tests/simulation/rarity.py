"""What every actor of a simulated run begins with: it looks at steps, and acts at random times."""

from paxos.ready import Ready
from tests.simulation.clients import OperationHistory
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine


class StepWatcher:
    """A SimulatedWatcher that looks at steps only."""

    def started(self, machine: SimulatedMachine) -> None:
        """See SimulatedWatcher."""

    def wiped(self, machine: SimulatedMachine) -> None:
        """See SimulatedWatcher."""

    def moved(self, machine: SimulatedMachine) -> None:
        """See SimulatedWatcher."""

    def answered(self, machine: SimulatedMachine, query: object, answer: object) -> None:
        """See SimulatedWatcher."""

    def replied(self, machine: SimulatedMachine, command: object, result: object) -> None:
        """See SimulatedWatcher."""

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """See SimulatedWatcher."""


class Rarity(StepWatcher):
    """Something that happens at random times until it is stopped."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self.cluster, self.history = cluster, history
        self.rng = cluster.scenario.rng(f"rarity/{type(self).__name__}")
        self.stopped = False
        self._longest_ms = longest_ms
        cluster.watchers.append(self)
        self._wait()

    def act(self) -> None:
        """Do it once."""
        raise NotImplementedError

    def anyone(self) -> SimulatedMachine:
        """Return a random machine."""
        return self.rng.choice(list(self.cluster.machines.values()))

    def _wait(self) -> None:
        self.cluster.world.between_ms(self.rng, (0.1, self._longest_ms), self._next)

    def _next(self) -> None:
        if not self.stopped:
            self.act()
            self._wait()
