"""One simulated host: the production node, on a clock and a disk that are not."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvstore.api.membership import Member, Membership
from kvstore.replica.founding import FoundingPlan
from kvstore.replica.node import Node
from kvstore.replica.retention import RetentionLimits
from paxos.options import Options
from paxos.ready import ServeFetch, ServeSnapshot, Write
from paxos.types import MS, NodeId, Slot, Time
from storage.memory import MemoryStorage
from tests.simulation.clock import SimulatedClock
from tests.simulation.disk import SqliteDisk
from tests.simulation.steps import short_steps
from tests.unit.kvstore.replica.restored import restored_storage, restored_writes

if TYPE_CHECKING:
    from tests.simulation.cluster import SimulatedCluster

Disk = MemoryStorage | SqliteDisk
MAX_IDLE_RINGS = 100
"""Ticks in a row after which a node that asks for the next one at the same past deadline is taken to spin."""
PAUSE_MS = (0.1, 20)
"""Shortest and longest time of half of the pauses within calls. The others are as long as a lease, or twice."""


class DiedInCallError(Exception):
    """The process died while it was paused in the midst of a call: nothing follows from the call."""


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
        self._neighbours_of: tuple[Node, Membership, bool] | None = None
        self._known: dict[NodeId, Member] = {}
        self._clock = SimulatedClock(cluster.world, cluster.scenario.faults, self._rng)
        self._clock_rng = cluster.scenario.rng(f"clock/{name}")
        self._pause_rng = cluster.scenario.rng(f"pauses/{name}")
        self._settings_rng = cluster.scenario.rng(f"settings/{name}")
        self.settings: dict[str, int] = {}
        """Settings of the lease for the next start, where they differ from those of the scenario."""
        self.options = cluster.options
        """Options of the last start."""
        self._stopped = False
        """It is paused from outside."""
        self._in_call = False
        """Its process is within a call of the node, or carries out what follows from one. Others see it so only while
        it is paused there."""
        self._draining = False
        self.called_at: Time | None = None
        """When the first call since the last step began, by its clock."""
        self.doomed = False
        """It dies in the next step that has something to write, and stays dead until somebody starts it."""
        self.stopping = False
        """It was told to shut down."""
        self.disk_fails = 0
        """Strikes that make every sync fail now."""
        self._backlog: deque[Callable[[], None]] = deque()
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
        if cluster.scenario.faults.rate_change_ms:
            self._wait_for_a_rate()

    @property
    def paused(self) -> bool:
        """True while the process does nothing: what arrives waits."""
        return self._stopped or self._in_call

    @property
    def durable(self) -> Disk:
        """The disk as a crash now would leave it."""
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
        member = self._neighbours(self.node).get(peer)
        if member is None:
            return peer == self.name
        if member.incarnation:
            self._seen.pop(peer, None)
            return incarnation == member.incarnation
        return incarnation == self._seen.setdefault(peer, incarnation)

    def _neighbours(self, node: Node) -> dict[NodeId, Member]:
        """Return `node.view.neighbours`, which changes seldom."""
        view = node.view
        seen = (node, view.newest, view.pending)
        if seen != self._neighbours_of:
            self._neighbours_of, self._known = seen, view.neighbours
        return self._known

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

    # The clock

    def clock(self) -> Time:
        """The host's monotonic clock."""
        return self._clock.now()

    @property
    def has_right_clock(self) -> bool:
        """False while the clock stands still, and as long as a lease may last that began before it went on."""
        return self._clock.wrong_until <= self._world.now

    def freeze(self) -> None:
        """Let the clock stand still, and with it the timer."""
        self._clock.freeze()

    def thaw(self, *, all_over: bool = False) -> None:
        """Undo one `freeze`, or with `all_over` every one: the clock goes on where it stood."""
        self._clock.thaw(2 * self._cluster.scenario.lease_ms * MS, all_over=all_over)
        self._set_timer()

    def _wait_for_a_rate(self) -> None:
        bounds = (0, 2 * self._cluster.scenario.faults.rate_change_ms)
        self._world.between_ms(self._clock_rng, bounds, self._change_rate)

    def _change_rate(self) -> None:
        if self._cluster.faults.rate_change_ms:
            self._cluster.count["changes of the rate of a clock"] += 1
            self._clock.change_rate(self._clock_rng)
            self._set_timer()
            self._wait_for_a_rate()

    def _read_clock(self) -> Time:
        """The node reads the clock. The process may be paused just before that, or just after: then the node goes by
        the time of before."""
        before = self.clock()
        return self.clock() if self._pauses() and self._pause_rng.random() < 0.5 else before

    def _pauses(self) -> bool:
        """Pause the process in the midst of what it does, perhaps: the others go on, and all that comes for it waits.
        Return True if it was paused."""
        rng, chance = self._pause_rng, self._cluster.faults.pause_in_call
        if not chance or not self._in_call or rng.random() >= chance:
            return False
        life, lease_ms = self.life, self._cluster.scenario.lease_ms
        length_ms = rng.uniform(*rng.choice((PAUSE_MS, (0.5 * lease_ms, 2 * lease_ms))))
        self._cluster.count["pauses within a call"] += 1
        self._cluster.note(self.name, "is paused within a call for ms", int(length_ms))
        self._world.run(self._world.now + int(length_ms * MS))
        if self.life != life:
            self._cluster.count["deaths in such a pause"] += 1
            raise DiedInCallError
        return True

    def _does(self, work: Callable[[], object]) -> bool:
        """Let the process do this, in which it may be paused. Return False if it died in such a pause."""
        life = self.life
        self._in_call = True
        if self.called_at is None:
            self.called_at = self.clock()
        try:
            work()
        except DiedInCallError:
            return False
        if self.life == life:
            self._in_call = False
        return True

    # The process

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
        self.options, limits = self._draw_settings()
        with short_steps(0, self._cluster.scenario.kept_answers):  # it replays its log
            self.node = Node(
                self._storage,
                self.options,
                clock=self._read_clock,
                rng=self._cluster.scenario.rng(f"node/{self.name}/{self.life}"),
                request_timeout_ms=self._cluster.scenario.request_timeout_ms,
                max_waiting=1000,
                limits=RetentionLimits(**limits),
                plan=FoundingPlan(self._founders),
            )
        self._timer = None
        self._turn_scheduled = False
        self._cluster.note(self.name, "starts", self.life)
        self._cluster.started(self)
        self._take_step()

    def _draw_settings(self) -> tuple[Options, dict[str, int]]:
        """The options and the limits of the next process."""
        scenario, rng = self._cluster.scenario, self._settings_rng
        mixed = rng.choice(scenario.mixed) if scenario.mixed else {}
        options = Options(**scenario.options | self.settings | mixed)
        if self.life > 1 and options != self.options:
            self._cluster.count["starts with other settings"] += 1
        return options, rng.choice(scenario.every_limits)

    @property
    def _founders(self) -> tuple[NodeId, ...]:
        names = self._cluster.scenario.names
        return names if self.name in names and not self.replaces else ()

    def crash(self, kept: int | None = None) -> None:
        """Lose the process, and of the writes under way everything but the first `kept`; a random number by default."""
        if self.node is None:
            return
        self.node = None
        self._stopped = self._in_call = self._draining = False
        self.called_at = None
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
        self._stopped = self.node is not None

    def resume(self) -> None:
        """Let it go on with all that arrived, in order."""
        self._stopped = False
        self._drain()

    def _drain(self) -> None:
        """Take what waits, in order, up to the next pause."""
        if self._draining:
            return
        life, self._draining = self.life, True
        while self._backlog and not self.paused and self.life == life:
            self._backlog.popleft()()
        if self.life == life:
            self._draining = False

    def happens(self, event: Callable[[Node], object]) -> None:
        """Let the node take part in `event`, when it runs, and carry out what follows."""
        if self.node is None:
            return
        if self.paused:
            self._backlog.append(partial(self.happens, event))
            return
        node = self.node
        node.incarnations = self._cluster.proved(self)
        node.replacement_requests = self._cluster.replacement_requests()
        if self._does(lambda: event(node)):
            self._cluster.moved(self)
            self._schedule_turn()
            self._drain()

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
        self._take_step()

    def _take_step(self) -> None:
        node = self.node
        assert node is not None
        if self._does(lambda: self._settle(node)):
            self._drain()

    def _settle(self, node: Node) -> None:
        with short_steps(self._cluster.scenario.applied_records, self._cluster.scenario.kept_answers):
            ready = node.step()
        self._cluster.stepped(self, ready)
        self.called_at = None
        self._pauses()  # what the step decided may leave later
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
        entries = self._storage.read(fetch.from_slot, fetch.upto, self.options.page_bytes)
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
        self._set_timer()

    def _set_timer(self) -> None:
        """Let the timer ring when the clock shows its deadline, as far as its rate of now tells. An early tick does no
        harm."""
        deadline, life = self._timer, self.life
        if deadline is not None and not self._clock.is_frozen:
            self._world.at(self._clock.when(deadline), lambda: self._ring(deadline, life))

    def _ring(self, deadline: Time, life: int) -> None:
        if self.life == life and self._timer == deadline and not self._clock.is_frozen:
            self._timer, self._rung = None, deadline
            self.happens(Node.tick)
