"""Time, network and disks of a simulated cluster, all drawn from one seed.

The simulator runs the production node (`kvstore.node`) and the production codec; it only replaces what is around them.
"""

import heapq
from collections.abc import Callable
from functools import partial
from random import Random

import msgspec

from kvstore.node import Node
from paxos import wire
from paxos.options import Options
from paxos.ready import Ready, ServeFetch, Write
from paxos.types import MS, Ballot, Membership, NodeId, PValue, Slot, Time
from storage.memory import MemoryStorage


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong. Probabilities are for each message; times are in milliseconds of simulated time."""

    loss: float = 0.0
    copies: float = 0.0
    delay_ms: tuple[float, float] = (0.2, 1.0)
    """Shortest and longest time on the way; whatever differs by chance is reordered."""
    turn_ms: tuple[float, float] = (0.0, 0.2)
    """Length of a turn of the event loop: what arrives within one is handed to the node before it takes a step."""
    stray: float = 0.0
    """A message that takes up to a second."""
    fsync_ms: tuple[float, float] = (0.1, 0.5)
    slow_fsync: float = 0.0
    """A write that takes up to 1.5 seconds."""
    crash_every_ms: float = 0.0
    partition_every_ms: float = 0.0
    pause_every_ms: float = 0.0
    down_ms: tuple[float, float] = (50, 1500)
    """How long a crash, a partition or a pause lasts."""
    drift_ppm: int = 0
    """Rates of clocks differ from 1 by at most half of this."""


class World:
    """The event queue. An event is a moment and what happens then; ties are broken by the order of scheduling."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now: Time = 0
        self._events: list[tuple[Time, int, Callable[[], None]]] = []
        self._scheduled = 0

    def at(self, when: Time, event: Callable[[], None]) -> None:
        """Have `event` happen at `when`, or now if that is past."""
        self._scheduled += 1
        heapq.heappush(self._events, (max(when, self.now), self._scheduled, event))

    def after_ms(self, delay_ms: float, event: Callable[[], None]) -> None:
        """Have `event` happen in a while."""
        self.at(self.now + int(delay_ms * MS), event)

    def between_ms(self, bounds: tuple[float, float], event: Callable[[], None]) -> None:
        """Have `event` happen after a random time within bounds."""
        self.after_ms(self.rng.uniform(*bounds), event)

    def run(self, until: Time, after_each: Callable[[], None] = lambda: None) -> None:
        """Let everything happen up to `until`. A cluster that does far more than it should is stuck in a loop."""
        most = self._scheduled + 1_000_000
        while self._events and self._events[0][0] <= until:
            assert self._scheduled < most, "a million events and no end: something is done again and again"
            when, _, event = heapq.heappop(self._events)
            self.now = when
            event()
            after_each()
        self.now = until


class Durable:
    """A look at what a disk would still hold after a crash now."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    @property
    def promised(self) -> Ballot:
        """The durable promise."""
        return self._storage.reopen().recovered().promised

    def read(self, slot: Slot) -> PValue | None:
        """The durable accepted value of `slot`."""
        found = self._storage.read(slot, slot, 0)
        return found[0] if found else None


class Machine:
    """One host: a clock with its own rate, a disk that loses what is not durable, and the node while it runs."""

    def __init__(self, world: World, name: NodeId, cluster: "Cluster") -> None:
        self.name = name
        self._world = world
        self._cluster = cluster
        self._storage = MemoryStorage("simulated", name)
        drift = cluster.faults.drift_ppm / 2
        self._rate = 1 + world.rng.uniform(-drift, drift) / 1e6
        self._offset = world.rng.randint(0, 10**15)
        self.paused = False
        self._backlog: list[Callable[[], None]] = []
        self._undurable: list[Write] = []
        self._fetches: list[tuple[int, ServeFetch]] = []
        self._writing = False
        self._life = 0
        self._timer: Time | None = None
        self._turn_scheduled = False
        self.node: Node | None = None
        self.start()

    @property
    def durable(self) -> Durable:
        """What a crash would leave."""
        return Durable(self._storage)

    def clock(self) -> Time:
        """The host's monotonic clock."""
        return self._offset + int(self._world.now * self._rate)

    def start(self) -> None:
        """Start the process on what the disk holds."""
        self._life += 1
        if self._life > 1:
            self._storage = self._storage.reopen()
        self.node = Node(
            self._storage,
            self._cluster.membership,
            self._cluster.options,
            clock=self.clock,
            rng=Random(self._world.rng.random()),
            request_timeout_ms=2500,
            max_waiting=1000,
        )
        self._timer = None
        self._turn_scheduled = False
        self._settle()

    def crash(self, kept: int | None = None) -> None:
        """Lose the process, and of the writes under way everything but the first `kept`; a random number by default."""
        self.node = None
        self.paused = False
        self._life += 1
        self._backlog.clear()
        if kept is None:
            kept = self._world.rng.randint(0, len(self._undurable))
        self._storage.write(self._undurable[:kept])
        self._undurable.clear()
        self._fetches.clear()
        self._writing = False

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: what arrives waits."""
        self.paused = True

    def resume(self) -> None:
        """Let it go on with all that arrived, in order."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            event()

    def happens(self, event: Callable[[Node], None]) -> None:
        """Let the node take part in `event`, when it runs, and carry out what follows."""
        if self.node is None:
            return
        if self.paused:
            self._backlog.append(lambda: self.happens(event))
            return
        event(self.node)
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._world.between_ms(self._cluster.faults.turn_ms, partial(self._turn, self._life))

    def _turn(self, life: int) -> None:
        """The node's step, after all that came in the same turn of the event loop."""
        if life != self._life:
            return
        if self.paused:
            self._backlog.append(partial(self._turn, life))
            return
        self._turn_scheduled = False
        self._settle()

    def _settle(self) -> None:
        node = self.node
        assert node is not None
        ready = node.step()
        self._cluster.stepped(self, ready)
        for envelope in ready.messages:
            self._cluster.transmit(self.name, envelope.to, wire.encode(envelope.message))
        if ready.write is not None:
            self._undurable.append(ready.write)
            self._sync()
        self._fetches += [(len(self._undurable), fetch) for fetch in ready.fetches]
        self._serve_fetches(0)
        self._arm(node)

    def _serve_fetches(self, synced: int) -> None:
        """Read for peers, each request after the writes that were under way when it came."""
        self._fetches = [(writes - synced, fetch) for writes, fetch in self._fetches]
        for _, fetch in [first for first in self._fetches if first[0] <= 0]:
            entries = self._storage.read(fetch.from_slot, fetch.upto, self._cluster.options.page_bytes)
            self._later((0.05, 0.3), partial(Node.fetched, to=fetch.to, entries=entries))
        self._fetches = [waiting for waiting in self._fetches if waiting[0] > 0]

    def _sync(self) -> None:
        if self._writing or not self._undurable:
            return
        self._writing = True
        group = len(self._undurable)
        faults = self._cluster.faults
        slow = self._world.rng.random() < faults.slow_fsync
        self._later((1.0, 1500.0) if slow else faults.fsync_ms, lambda node: self._synced(node, group))

    def _synced(self, node: Node, group: int) -> None:
        writes = self._undurable[:group]
        del self._undurable[:group]
        self._storage.write(writes)
        self._writing = False
        self._serve_fetches(group)
        node.durable(writes)
        self._sync()

    def _later(self, bounds: tuple[float, float], event: Callable[[Node], None]) -> None:
        life = self._life
        self._world.between_ms(bounds, lambda: self.happens(event) if self._life == life else None)

    def _arm(self, node: Node) -> None:
        deadline = node.next_deadline()
        if self._timer == deadline:
            return
        self._timer = deadline
        life = self._life
        left = max(0, deadline - self.clock())
        self._world.at(self._world.now + int(left / self._rate) + 1, lambda: self._ring(deadline, life))

    def _ring(self, deadline: Time, life: int) -> None:
        if self._life == life and self._timer == deadline:
            self._timer = None
            self.happens(lambda node: node.tick())


class Cluster:
    """Machines and the network between them, with faults as they come."""

    def __init__(self, seed: int, faults: Faults, nodes: int = 3, options: Options | None = None) -> None:
        self.world = World(seed)
        self.faults = faults
        self.options = options or Options()
        names = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.membership = Membership(names)
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self.faulty = True
        self.events = 0
        """Steps that nodes took."""
        self.observers: list[Callable[[Machine, Ready], None]] = []
        self.machines = {name: Machine(self.world, name, self) for name in names}
        for every_ms, fault in (
            (faults.crash_every_ms, self._crash),
            (faults.partition_every_ms, self._partition),
            (faults.pause_every_ms, self._pause),
        ):
            if every_ms:
                self._repeat(every_ms, fault)

    def stepped(self, machine: Machine, ready: Ready) -> None:
        """A node took a step."""
        self.events += 1
        for observer in self.observers:
            observer(machine, ready)

    def transmit(self, sender: NodeId, to: NodeId, frame: bytes) -> None:
        """Put a frame on the network, which does with it what it likes."""
        faults, rng = self.faults, self.world.rng
        if self.faulty and rng.random() < faults.loss:
            return
        for _ in range(2 if self.faulty and rng.random() < faults.copies else 1):
            stray = self.faulty and rng.random() < faults.stray
            bounds = (0.2, 1000.0) if stray else faults.delay_ms
            self.world.between_ms(bounds, lambda: self._deliver(sender, to, frame))

    def heal(self) -> None:
        """No more faults, everything up."""
        self.faulty = False
        self._cut.clear()
        for machine in self.machines.values():
            if machine.node is None:
                machine.start()
            if machine.paused:
                machine.resume()

    def _deliver(self, sender: NodeId, to: NodeId, frame: bytes) -> None:
        if (sender, to) not in self._cut:
            self.machines[to].happens(lambda node: node.receive(sender, wire.decode(frame)))

    def _repeat(self, every_ms: float, fault: Callable[[], None]) -> None:
        def strike() -> None:
            if self.faulty:
                fault()
                self._repeat(every_ms, fault)

        self.world.between_ms((0.2 * every_ms, 1.8 * every_ms), strike)

    def _crash(self) -> None:
        rng = self.world.rng
        everybody = rng.random() < 0.1
        for machine in self.machines.values() if everybody else [rng.choice(list(self.machines.values()))]:
            if machine.node is not None:
                machine.crash()
                self.world.between_ms(self.faults.down_ms, partial(self._restart, machine))

    def _restart(self, machine: Machine) -> None:
        if machine.node is None:
            machine.start()

    def _partition(self) -> None:
        """Cut one machine off, or the links of a random half, one way or both."""
        rng = self.world.rng
        names = list(self.machines)
        side = {rng.choice(names)} if rng.random() < 0.6 else set(rng.sample(names, len(names) // 2))
        links = {(a, b) for a in side for b in names if b not in side}
        one_way = rng.random() < 0.4
        back = {(b, a) for a, b in links}
        cut = back if one_way and rng.random() < 0.5 else links if one_way else links | back
        self._cut |= cut
        self.world.between_ms(self.faults.down_ms, lambda: self._cut.difference_update(cut))

    def _pause(self) -> None:
        machine = self.world.rng.choice(list(self.machines.values()))
        if machine.node is not None and not machine.paused:
            machine.pause()
            self.world.between_ms(self.faults.down_ms, lambda: machine.resume() if machine.paused else None)
