"""Actors that hold messages back, and deliver them when they are most harmful."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from kvstore.api.queries import Consistency
from paxos.messages import (
    Accepted,
    AnyMessage,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    Promise,
    ReadIndexReply,
    SnapshotPage,
)
from paxos.ready import Ready
from paxos.role import Role
from paxos.types import NodeId, Time
from storage.base import StateWrite
from tests.simulation.clients import OperationHistory
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.simulation.rarity import Rarity
from tests.simulation.scenario import moment

POLL_MS = 3
"""How often an actor looks whether it can go on."""
FIRST = 4
"""Read indexes of each life that are kept."""

Arrive = Callable[[], None]


class Holder(Rarity):
    """An actor that takes messages from the network."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self.busy = False
        super().__init__(cluster, history, longest_ms)
        cluster.network.holds.append(lambda *message: not self.stopped and self.hold(*message))

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """See `tests.simulation.network.Hold`."""
        raise NotImplementedError

    def later(self, delay_ms: float, event: Callable[[], None]) -> None:
        """Have `event` happen in a while, unless the actor is stopped."""
        self.cluster.world.after_ms(delay_ms, lambda: None if self.stopped else event())


class LateIndexes(Holder):
    """A replica dies, starts again and begins to read, cut off from the others: the read indexes that arrive were asked
    for in earlier lives."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._kept: defaultdict[tuple[NodeId, int], list[Arrive]] = defaultdict(list)
        """The first read indexes for each life of each replica."""
        self._victim: SimulatedMachine | None = None
        super().__init__(cluster, history, longest_ms)

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """Keep copies of read indexes, and cut the victim off."""
        kept = self._kept[to, self.cluster.machines[to].life] if isinstance(message, ReadIndexReply) else None
        if kept is not None and len(kept) < FIRST:
            kept.append(arrive)
        return self._victim is not None and self._victim.name in {sender, to}

    def act(self) -> None:
        """Let one replica die."""
        machine = self.anyone()
        lives = [life for name, life in self._kept if name == machine.name and self._kept[name, life]]
        if self._victim is not None or not lives or machine is self.cluster.leader() or machine.node is None:
            return
        self._victim = machine
        machine.crash()
        self.later(1, machine.start)
        due = self.cluster.world.now + moment(self.cluster.scenario.lease_ms + 500)
        self.later(POLL_MS, partial(self._await_write, machine, self.history.revision, due))

    def _await_write(self, machine: SimulatedMachine, revision: int, due: Time) -> None:
        """Wait until somebody is told of a write that the victim has not heard of."""
        if self.history.revision <= revision and self.cluster.world.now < due:
            self.later(POLL_MS, partial(self._await_write, machine, revision, due))
            return
        for consistency in (Consistency.LINEARIZABLE, Consistency.QUORUM):
            machine.happens(self.read(machine, consistency))
        self.later(25, partial(self._deliver, machine))

    def _deliver(self, machine: SimulatedMachine) -> None:
        for (name, life), kept in self._kept.items():
            if name == machine.name and life < machine.life:
                for arrive in kept:
                    arrive()
        self.later(25, self._release)

    def _release(self) -> None:
        self._victim = None


class LateAcks(Holder):
    """A leader pauses just after a heartbeat, until it has a successor that has answered a write. Then it is asked to
    read, and only then the answers to its heartbeat arrive, before it can send another one."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._armed = False
        self._victim: SimulatedMachine | None = None
        self._kept: list[Arrive] = []
        super().__init__(cluster, history, longest_ms)

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """Keep the answers to the last heartbeat."""
        if self._victim is None or to != self._victim.name:
            return False
        if isinstance(message, HeartbeatAck):
            self._kept.append(arrive)
        return True

    def act(self) -> None:
        """Strike with the next heartbeat."""
        self._armed = self._victim is None

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Wait for a heartbeat."""
        beats = any(isinstance(envelope.message, Heartbeat) for envelope in ready.messages)
        if self._armed and beats and not self.stopped:
            self._armed, self._victim, self._kept = False, machine, []
            self.cluster.world.after_ms(0, machine.pause)
            due = self.cluster.world.now + moment(3 * self.cluster.scenario.lease_ms + 1500)
            self.later(POLL_MS, partial(self._await_successor, machine, machine.life, due))

    def _await_successor(self, machine: SimulatedMachine, life: int, due: Time) -> None:
        leader = self.cluster.leader()
        if machine.life != life or not machine.paused or self.cluster.world.now >= due:
            self._end(machine)
        elif leader is not None and leader is not machine and leader.node and leader.node.replica.caught_up:
            self.later(POLL_MS, partial(self._await_write, machine, life, self.history.revision, due))
        else:
            self.later(POLL_MS, partial(self._await_successor, machine, life, due))

    def _await_write(self, machine: SimulatedMachine, life: int, revision: int, due: Time) -> None:
        if machine.life != life or not machine.paused or self.cluster.world.now >= due:
            self._end(machine)
        elif self.history.revision > revision:
            turn = partial(machine._turn, life)
            read = partial(machine.happens, self.read(machine, Consistency.QUORUM))
            machine._backlog.extendleft(reversed([read, turn, *self._kept, turn]))
            self._end(machine)
        else:
            self.later(POLL_MS, partial(self._await_write, machine, life, revision, due))

    def _end(self, machine: SimulatedMachine) -> None:
        self._victim = None
        machine.resume()


class LostVotes(Holder):
    """A leader hears everything but votes: it has to step down, see `tests.simulation.conduct`."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._deaf = ""
        super().__init__(cluster, history, longest_ms)

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """Lose votes for the leader."""
        return to == self._deaf and isinstance(message, Accepted)

    def act(self) -> None:
        """Begin, or end."""
        leader = self.cluster.leader()
        if leader is not None and not self._deaf:
            self._deaf = leader.name
            self.later(1.3 * self.cluster.options.stall_ms + 300, self._end)

    def _end(self) -> None:
        self._deaf = ""


class HighPromises(Holder):
    """A candidate is cut off just before its Prepare leaves, and comes back with its promise when another one leads,
    often under a lower ballot."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._armed = False
        self._victim = ""
        super().__init__(cluster, history, longest_ms)

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """Cut off whoever prepares first."""
        if self._armed and isinstance(message, Prepare):
            self._armed, self._victim = False, sender
            self._await_leader(self.cluster.world.now + moment(5 * self.cluster.scenario.lease_ms + 500))
        return self._victim in {sender, to}

    def act(self) -> None:
        """Let the leader die, so that somebody prepares."""
        leader = self.cluster.leader()
        if leader is not None and not self._victim:
            self._armed = True
            leader.crash()
            self.later(30, leader.start)

    def _await_leader(self, due: Time) -> None:
        leads = any(
            machine.node is not None
            and machine.name != self._victim
            and machine.node.replica.lease_holds(machine.clock())
            for machine in self.cluster.machines.values()
        )
        if leads or self.cluster.world.now >= due:
            self._victim = ""
        else:
            self.later(POLL_MS, partial(self._await_leader, due))


class SnapshotRelay(Holder):
    """A replica falls behind the truncated log, and gets the first pages of a snapshot from one source and the others
    from another one. One of the two was cut off meanwhile, so that it has compacted less. Mostly the receiver dies in
    between."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._receiver: SimulatedMachine | None = None
        self._lagging = ""
        """Who is cut off from all but the receiver."""
        self._source: NodeId | None = None
        """Who alone has a link with the receiver; None for everybody."""
        self._next_source: NodeId = ""
        """Who alone has one after the next pages."""
        self._starves = False
        """The receiver votes, and is sent neither pages nor slots."""
        self._due: Time = 0
        super().__init__(cluster, history, longest_ms)

    def hold(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Arrive) -> bool:
        """Cut links, see the attributes."""
        if self._receiver is None:
            return False
        ends, receiver = {sender, to}, self._receiver.name
        starves = self._starves and isinstance(message, SnapshotPage | Learn)
        if to == receiver and (starves or isinstance(message, Promise)):
            return True  # nor may it lead: its peers hold slots that they have truncated, for candidates
        if receiver in ends:
            return self._source is not None and self._source not in ends
        return self._lagging in ends

    def act(self) -> None:
        """Stop a follower."""
        machines = [machine for machine in self.cluster.machines.values() if machine.node is not None]
        followers = [
            machine for machine in machines if machine.node is not None and machine.node.replica.role is not Role.LEADER
        ]
        if self._receiver is not None or not followers or len(machines) < len(self.cluster.scenario.names):
            return
        self._receiver = receiver = self.rng.choice(followers)
        others = [machine.name for machine in machines if machine is not receiver]
        first, second = self.rng.sample(others, 2)
        self._lagging = ""
        receiver.crash()
        self._due = self.cluster.world.now + moment(3000)
        self._await_truncation(receiver, first, second)

    def _await_truncation(self, receiver: SimulatedMachine, first: NodeId, second: NodeId) -> None:
        nodes = [self.cluster.machines[name].node for name in (first, second)]
        cut = [node._checkpointer.truncated for node in nodes if node is not None]
        if self.cluster.world.now >= self._due:
            self._end(receiver)
        elif len(cut) < 2 or min(cut) <= receiver.durable.hard_state.last:
            self.later(POLL_MS, partial(self._await_truncation, receiver, first, second))
        else:
            self._lagging = lagging = first if self.rng.random() < 0.3 else second
            self._source = second if lagging == first else first
            self._starves = True
            receiver.start()  # it votes, so that a majority of three is there
            self._due = self.cluster.world.now + moment(self.rng.choice((300, 1500)))
            self._await_compaction(receiver, first, second)

    def _await_compaction(self, receiver: SimulatedMachine, first: NodeId, second: NodeId) -> None:
        """Wait until one source has compacted all that the lagging one has."""
        nodes = [self.cluster.machines[name].node for name in (first, second)]
        histories = [(node.machine.history.compacted, node.machine.position) for node in nodes if node is not None]
        apart = len(histories) == 2 and max(histories)[0] > min(histories)[1]
        if apart or self.cluster.world.now >= self._due:
            self._ask(receiver, first, second)
        else:
            self.later(POLL_MS, partial(self._await_compaction, receiver, first, second))

    def _ask(self, receiver: SimulatedMachine, first: NodeId, second: NodeId) -> None:
        """A new process asks the first source."""
        self._source, self._starves = first, False
        self._due = self.cluster.world.now + moment(2000)
        receiver.crash()
        receiver.start()
        self._next_source = second
        self._await_state(receiver)

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Turn to the second source after a page, mostly after one that a page of that source may follow; and have the
        receiver die after some pages."""
        staged = ready.write.staged if isinstance(ready.write, StateWrite) else None
        if machine is not self._receiver or staged is None or staged.page.progress is not None or self.stopped:
            return
        if not self._next_source:
            dies = self._source is not None and self.rng.random() < 0.2
        else:
            node = self.cluster.machines[self._next_source].node
            after = staged.page.changes[-1].position if staged.page.changes else 0
            follows = node is not None and node.machine.history.compacted <= after
            if self.rng.random() >= (0.5 if follows else 0.1):
                return
            self._source, self._next_source = self._next_source, ""
            self._due = self.cluster.world.now + moment(2000)
            dies = self.rng.random() < 0.7
        if dies:
            self.later(0, partial(self._restart, machine))

    def _restart(self, receiver: SimulatedMachine) -> None:
        receiver.crash(len(receiver._undurable))
        receiver.start()

    def _await_state(self, receiver: SimulatedMachine) -> None:
        node = receiver.node
        if self.cluster.world.now >= self._due or node is None or node.stats.snapshots_installed:
            self._end(receiver)
        else:
            self.later(POLL_MS, partial(self._await_state, receiver))

    def _end(self, receiver: SimulatedMachine) -> None:
        self._receiver, self._lagging, self._starves = None, "", False
        self._source, self._next_source = None, ""
        receiver.start()
