"""One simulated host: the production node, on a clock and a disk that are not."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvstore.replica.founding import FoundingPlan
from kvstore.replica.node import Node
from kvstore.replica.retention import RetentionLimits
from paxos.ready import ServeFetch, ServeSnapshot, Write
from paxos.types import NodeId, Slot, Time
from storage.memory import MemoryStorage
from tests.simulation.disk import SqliteDisk
from tests.simulation.steps import short_steps
from tests.unit.kvstore.replica.restored import restored_storage, restored_writes

if TYPE_CHECKING:
    from tests.simulation.cluster import SimulatedCluster

Disk = MemoryStorage | SqliteDisk
MAX_IDLE_RINGS = 100
"""Ticks in a row after which a node that asks for the next one at the same past deadline is taken to spin."""


class SimulatedMachine:
    """A clock with its own rate, a disk that loses what is not durable, and the node while it runs."""

    def __init__(self, name: NodeId, cluster: "SimulatedCluster") -> None:
        self.name = name
        self._cluster = cluster
        self._world = cluster.world
        self._rng = cluster.scenario.rng(f"machine/{name}")
        self._storage = self._new_disk(1, cluster.scenario.restored if name in cluster.scenario.names else 0)
        self._fresh = True
        """Nobody has ever started on this disk."""
        self.replaces = 0
        """The incarnation of the data that this disk takes the place of, see `kvstore.peers.handshake`."""
        self.lost: list[Disk] = []
        """Disks that are gone. What was chosen with their votes is chosen."""
        self._seen: dict[NodeId, int] = {}
        drift = cluster.scenario.faults.drift_ppm / 2e6
        self._rate = 1 + self._rng.choice((-drift, drift, self._rng.uniform(-drift, drift)))
        self._offset = self._rng.randint(0, 10**15)
        self.paused = False
        self.doomed = False
        """It dies in the next step that has something to write, and stays dead until somebody starts it."""
        self.stopping = False
        """It was told to shut down."""
        self.disk_fails = 0
        """Strikes that make every sync fail now."""
        self._backlog: list[Callable[[], None]] = []
        self._undurable: list[Write] = []
        self._fetches: list[tuple[int, ServeFetch | ServeSnapshot]] = []
        self._writing = False
        self.life = 0
        self._timer: Time | None = None
        self._rung: Time | None = None
        """The deadline of the last tick."""
        self._idle_rings = 0
        """How often in a row the node asked for a tick at that deadline again."""
        self._turn_scheduled = False
        self.node: Node | None = None

    @property
    def durable(self) -> Disk:
        """What a crash now would leave."""
        return self._storage

    @property
    def incarnation(self) -> int:
        """Of the data on the disk."""
        return self._storage.recovered().identity.incarnation

    def recognises(self, peer: NodeId, incarnation: int) -> bool:
        """Whether there is a link with `peer` on the data of `incarnation`: see `kvstore.peers.handshake`."""
        if self.node is None or not self.node.membership.members:
            self._seen[peer] = max(incarnation, self._seen.get(peer, 0))
            return incarnation == self._seen[peer]
        member = self.node.view.neighbours.get(peer)
        if member is None:
            return peer == self.name
        if member.incarnation:
            self._seen.pop(peer, None)
            return incarnation == member.incarnation
        return incarnation == self._seen.setdefault(peer, incarnation)

    def _new_disk(self, incarnation: int, slot: Slot) -> Disk:
        """Empty for slot 0, or with the restored state as of `slot`."""
        if self._cluster.scenario.sqlite:
            directory = self._cluster.directory / f"{self.name}-{incarnation}"
            rng = self._cluster.scenario.rng(f"disk/{self.name}/{incarnation}")
            return SqliteDisk.create(directory, self.name, incarnation, rng, restored_writes(slot) if slot else ())
        if slot:
            return restored_storage(self.name, incarnation, slot=slot)
        return MemoryStorage("simulated", self.name, incarnation)

    def wipe(self, *, damaged: bool) -> None:
        """Lose the disk, and start on an empty one. `damaged`: it knows whose place it wants, and joins; otherwise it
        may believe that this is its first start. A member of a restored cluster may be restored once more."""
        slot = self._cluster.scenario.restored
        again = bool(slot) and not damaged and self._rng.random() < 0.5
        self.restore(slot if again else 0, damaged=damaged)

    def restore(self, slot: Slot, *, damaged: bool = False) -> None:
        """Start on another disk, with the restored state as of `slot`, or on an empty one for slot 0."""
        self.crash()
        self.replaces = self.incarnation if damaged else 0
        self.lost.append(self._storage)
        self._storage = self._new_disk(self.incarnation + 1, slot)
        self._fresh = True
        self._cluster.wiped(self)
        self.start()

    def put_back(self) -> None:
        """Start on the last disk that was lost, which was found again."""
        self.crash()
        self._storage = self.lost.pop()
        self.start()

    def close(self) -> None:
        """Let the files of all disks go."""
        for disk in (self._storage, *self.lost):
            disk.close()

    def clock(self) -> Time:
        """The host's monotonic clock."""
        return self._offset + int(self._world.now * self._rate)

    def start(self) -> None:
        """Start the process on what the disk holds, unless it runs."""
        if self.node is not None:
            return
        self.doomed = self.stopping = False
        self.life += 1
        if not self._fresh:
            self._storage = self._storage.reopen()
        self._fresh = False
        self._seen.clear()
        with short_steps(0, self._cluster.scenario.kept_answers):  # it replays its log
            self.node = Node(
                self._storage,
                self._cluster.options,
                clock=self.clock,
                rng=self._cluster.scenario.rng(f"node/{self.name}/{self.life}"),
                request_timeout_ms=self._cluster.scenario.request_timeout_ms,
                max_waiting=1000,
                limits=RetentionLimits(**self._cluster.scenario.limits),
                plan=FoundingPlan(self._founders),
            )
        self._timer = None
        self._turn_scheduled = False
        self._cluster.note(self.name, "starts", self.life)
        self._cluster.started(self)
        self._settle()

    @property
    def _founders(self) -> tuple[NodeId, ...]:
        names = self._cluster.scenario.names
        return names if self.name in names and not self.replaces else ()

    def crash(self, kept: int | None = None) -> None:
        """Lose the process, and of the writes under way everything but the first `kept`; a random number by default."""
        if self.node is None:
            return
        self.node = None
        self.paused = False
        self.life += 1
        self._backlog.clear()
        if kept is None:
            kept = self._rng.randint(0, len(self._undurable))
        self._cluster.note(self.name, "dies", f"and loses {len(self._undurable[kept:])} writes")
        self._storage.write(self._undurable[:kept])
        if isinstance(self._storage, SqliteDisk):
            self._storage.lose_power(self._undurable[kept:])
        self._undurable.clear()
        self._fetches.clear()
        self._writing = False

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: what arrives waits."""
        self.paused = self.node is not None

    def resume(self) -> None:
        """Let it go on with all that arrived, in order."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            event()

    def happens(self, event: Callable[[Node], object]) -> None:
        """Let the node take part in `event`, when it runs, and carry out what follows."""
        if self.node is None:
            return
        if self.paused:
            self._backlog.append(partial(self.happens, event))
            return
        self.node.incarnations = self._cluster.proved(self)
        self.node.replacement_requests = self._cluster.replacement_requests()
        event(self.node)
        self._cluster.moved(self)
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if self.node is not None and not self._turn_scheduled:
            self._turn_scheduled = True
            self._world.between_ms(self._rng, self._cluster.faults.turn_ms, partial(self._turn, self.life))

    def _turn(self, life: int) -> None:
        """The node's step, after all that came in the same turn of the event loop."""
        if life != self.life:
            return
        if self.paused:
            self._backlog.append(partial(self._turn, life))
            return
        self._turn_scheduled = False
        self._settle()

    def _settle(self) -> None:
        node = self.node
        assert node is not None
        with short_steps(self._cluster.scenario.applied_records, self._cluster.scenario.kept_answers):
            ready = node.step()
        self._cluster.stepped(self, ready)
        fatal = self._rng.random() < self._cluster.faults.crash_in_step or (self.doomed and ready.write is not None)
        sent = self._rng.randint(0, len(ready.messages)) if fatal else len(ready.messages)
        for envelope in ready.messages[:sent]:
            self._cluster.transmit(self.name, envelope.to, envelope.message)
        if ready.write is not None and not (fatal and self._rng.random() < 0.5):
            self._undurable.append(ready.write)
        if fatal:
            self._die()
            return
        self._sync()
        self._fetches += [(len(self._undurable), fetch) for fetch in ready.fetches]
        self._serve_fetches(0)
        self._arm(node)
        if node.has_more:
            self._schedule_turn()

    def _die(self) -> None:
        """End by itself. Whoever watches over processes starts it again, unless it was doomed."""
        self.crash()
        if self.doomed:
            return
        self._world.between_ms(self._rng, (1, 300), self.start)

    def _serve_fetches(self, synced: int) -> None:
        """Read for peers, each request after the writes that were under way when it came."""
        if not self._fetches:
            return
        self._fetches = [(writes - synced, fetch) for writes, fetch in self._fetches]
        for _, fetch in [first for first in self._fetches if first[0] <= 0]:
            self._later((0.05, 0.3), self._read(fetch))
        self._fetches = [waiting for waiting in self._fetches if waiting[0] > 0]

    def _read(self, fetch: ServeFetch | ServeSnapshot) -> Callable[[Node], None]:
        if isinstance(fetch, ServeSnapshot):
            page = self._storage.read_state(fetch.after, fetch.max_bytes)
            return partial(Node.state_page_read, to=fetch.to, after=fetch.after, page=page)
        entries = self._storage.read(fetch.from_slot, fetch.upto, self._cluster.options.page_bytes)
        return partial(Node.log_page_read, to=fetch.to, entries=entries)

    def _sync(self) -> None:
        if self._writing or not self._undurable:
            return
        self._writing = True
        group = len(self._undurable)
        faults = self._cluster.faults
        slow = self._rng.random() < faults.slow_fsync
        bounds_ms = (1.0, self._cluster.scenario.slow_fsync_ms) if slow else faults.fsync_ms
        self._later(bounds_ms, lambda node: self._synced(node, group))

    def _synced(self, node: Node, group: int) -> None:
        if self.disk_fails:
            self._die()  # rule 4
            return
        writes = self._undurable[:group]
        del self._undurable[:group]
        self._storage.write(writes)
        self._cluster.note(self.name, "made durable", group)
        self._writing = False
        self._serve_fetches(group)
        node.durable(writes)
        self._sync()

    def _later(self, bounds: tuple[float, float], event: Callable[[Node], None]) -> None:
        life = self.life
        self._world.between_ms(self._rng, bounds, lambda: self.happens(event) if self.life == life else None)

    def _arm(self, node: Node) -> None:
        deadline = node.next_deadline()
        if self._timer == deadline:
            return
        self._idle_rings = self._idle_rings + 1 if deadline == self._rung else 0
        assert self._idle_rings < MAX_IDLE_RINGS, f"{self.name} asks again and again for a tick that does nothing"
        self._timer = deadline
        life = self.life
        left = max(0, deadline - self.clock())
        self._world.at(self._world.now + int(left / self._rate) + 1, lambda: self._ring(deadline, life))

    def _ring(self, deadline: Time, life: int) -> None:
        if self.life == life and self._timer == deadline:
            self._timer, self._rung = None, deadline
            self.happens(Node.tick)
