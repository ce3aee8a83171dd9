"""The base of all actors of a simulated run: it looks at steps, and acts at random times."""

from collections.abc import Callable
from functools import partial

from kvstore.api.errors import Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.replica.node import Node
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

    def read(self, machine: SimulatedMachine, consistency: Consistency) -> Callable[[Node], object]:
        """Return a read that begins now: its answer is not older than what anybody was told before now."""
        answered = partial(self._was_read, machine, self.history.revision)
        return lambda node: node.read(b"k0", consistency, answered)

    def _was_read(self, machine: SimulatedMachine, floor: int, answer: ReadAnswer | Refused) -> None:
        if not isinstance(answer, Refused):
            self.cluster.answered(machine, b"k0", answer)
            if self.cluster.scenario.clocks_keep_the_bound:
                self.history.told(answer.revision, floor, change=False)

    def _wait(self) -> None:
        self.cluster.world.between_ms(self.rng, (0.1, self._longest_ms), self._next)

    def _next(self) -> None:
        if not self.stopped:
            self.act()
            self._wait()
