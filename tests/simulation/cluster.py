"""A simulated cluster: machines, the network between them, and the faults of a scenario as they strike."""

from collections import Counter
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from kvstore.api.commands import Command, Result
from kvstore.api.errors import Refused
from kvstore.api.membership import Membership
from kvstore.api.queries import Query
from kvstore.api.results import QueryAnswer
from kvstore.replica.node import Node
from kvstore.replica.proposal_queue import WriteReply
from paxos import wire
from paxos.messages import AnyMessage
from paxos.options import Options
from paxos.ready import Ready
from paxos.role import Role
from paxos.types import ZERO, NodeId, Time
from storage.base import DiskSpace
from tests.simulation.machine import SimulatedMachine
from tests.simulation.network import Link, Network, Shown, links
from tests.simulation.scenario import EVERYWHERE, LEADER, Faults, Scenario, Strike, StrikeKind, moment
from tests.simulation.trace import EventTrace
from tests.simulation.world import World

STORM_UP_MS = (0.1, 40)
"""How long a process lives between two deaths of a storm."""
ENDLESS_STORM_UP_MS = (50, 400)
"""The same in a storm without end: each life reads the whole log."""
SHUTDOWN_MS = (1, 50)
"""How long a process lives once it was told to stop."""


class SimulatedWatcher(Protocol):
    """Looks on, and raises AssertionError at what must not be."""

    def started(self, machine: SimulatedMachine) -> None:
        """A process started; it has taken no step."""

    def wiped(self, machine: SimulatedMachine) -> None:
        """A disk was lost; the process has not started on the next one."""

    def moved(self, machine: SimulatedMachine) -> None:
        """Something was handed to a node, which is None when it died of it."""

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """A node took a step; nothing of it was carried out yet."""

    def answered(self, machine: SimulatedMachine, query: Query, answer: QueryAnswer) -> None:
        """A node answered a read; its step may not be over."""

    def replied(self, machine: SimulatedMachine, command: Command, result: Result) -> None:
        """A node answered a write; its step is not over."""


class SimulatedCluster:
    """Machines under a scenario's faults, until `heal`."""

    def __init__(self, scenario: Scenario, trace: EventTrace | None = None) -> None:
        self.scenario = scenario
        self.faults = scenario.faults
        self.options = Options(**scenario.options)
        self.world = World()
        self.trace = trace or EventTrace()
        self.network = Network(self.world, scenario, self._deliver)
        self.watchers: list[SimulatedWatcher] = []
        self._directory: TemporaryDirectory[str] | None = None
        self.steps = 0
        """Steps that nodes took."""
        self.struck: Counter[str] = Counter()
        """Strikes by kind, those that hit somebody."""
        self.count: Counter[str] = Counter()
        """What happened besides: pauses within calls and deaths in them, changes of rates and of settings."""
        self.machines = {name: SimulatedMachine(name, self) for name in scenario.everybody}
        for machine in self.machines.values():
            self.world.between_ms(scenario.rng(f"first start/{machine.name}"), (0, scenario.arrive_ms), machine.start)
        for strike in scenario.strikes:
            self.world.at(moment(strike.at_ms), partial(self._strike, strike))
        self._relayed: SimulatedMachine | None = None
        self._faulty = True
        self._whole = False

    @cached_property
    def directory(self) -> Path:
        """A directory in memory for the disks, until `close`."""
        memory = Path("/dev/shm")
        self._directory = TemporaryDirectory(prefix="kvstore-simulation-", dir=memory if memory.is_dir() else None)
        return Path(self._directory.name)

    def close(self) -> None:
        """Remove the disks."""
        if self._directory is not None:
            for machine in self.machines.values():
                machine.close()
            self._directory.cleanup()

    def leader(self) -> SimulatedMachine | None:
        """Return the machine that leads under the highest ballot, as far as the running processes know."""
        leaders = [
            (machine.node.replica.leader_ballot or ZERO, machine)
            for machine in self.machines.values()
            if machine.node is not None and machine.node.replica.role is Role.LEADER
        ]
        return max(leaders, key=lambda one: one[0])[1] if leaders else None

    @property
    def is_founded(self) -> bool:
        """True once every founding member knows the membership, has known it before it lost its disk, or was removed
        by the others before it heard that the cluster was founded: no member tells it any more."""
        founders = [self.machines[name] for name in self.scenario.names]
        known = [machine.node.membership for machine in self.machines.values() if machine.node is not None]
        newest = max(known, key=lambda membership: membership.version, default=Membership())
        return all(
            one.lost
            or (one.node is not None and one.node.view.known)
            or (newest.version > 0 and newest.get(one.name) is None)
            for one in founders
        )

    def members(self) -> list[Node | None]:
        """The nodes of those who are members by what the most advanced one knows."""
        nodes = [machine.node for machine in self.machines.values() if machine.node is not None]
        membership = max((node.membership for node in nodes), key=lambda membership: membership.version)
        return [self.machines[member.name].node for member in membership.members]

    def heal(self, core: tuple[NodeId, ...] = ()) -> None:
        """No more faults; everybody up and connected, or those of `core` only, while the others go on to suffer."""
        self._faulty = False
        self._whole = not core
        self.faults = Faults()
        self.note("", "heal", core)
        self.network.mend_all()
        for machine in self.machines.values():
            machine.disk_fails = 0
            machine.doomed = False
            machine.thaw(all_over=True)
            self._set_back(machine)
            machine.happens(lambda node: node.space_changed(DiskSpace.AMPLE))
            if machine.stopping:
                machine.crash()
            if core and machine.name not in core:
                self._break_for_good(machine)
            else:
                machine.start()
                machine.resume()

    def _set_back(self, machine: SimulatedMachine) -> None:
        """Let it have the settings of the lease that all begin with. Replicas whose leases differ have no links."""
        machine.settings = {}
        if machine.options.grant_terms != self.options.grant_terms:
            machine.crash()

    # What machines report

    def note(self, who: str, what: str, detail: object = "") -> None:
        """Add to the trace."""
        self.trace.note(self.world.now, who, what, detail)

    def started(self, machine: SimulatedMachine) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.started(machine)

    def moved(self, machine: SimulatedMachine) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.moved(machine)

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """See Watcher."""
        self.steps += 1
        if ready.chosen:
            self.note(machine.name, "applies", ready.chosen)
        if ready.write is not None:
            self.note(machine.name, "writes", (ready.write.promise, ready.write.accepts, ready.write.chosen))
        for watcher in self.watchers:
            watcher.stepped(machine, ready)

    def answered(self, machine: SimulatedMachine, query: Query, answer: QueryAnswer) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.answered(machine, query, answer)

    def write(self, machine: SimulatedMachine, node: Node, command: Command, reply: WriteReply) -> None:
        """Ask the node on `machine` to order `command`."""

        def answered(result: Result | Refused) -> None:
            if not isinstance(result, Refused):
                for watcher in self.watchers:
                    watcher.replied(machine, command, result)
            reply(result)

        node.write(command, answered)

    def wiped(self, machine: SimulatedMachine) -> None:
        """See Watcher."""
        self.note(machine.name, "loses its disk")
        for watcher in self.watchers:
            watcher.wiped(machine)

    def proved(self, machine: SimulatedMachine) -> dict[NodeId, int]:
        """Return the incarnation of each replica that has proved its data to `machine`."""
        return {
            name: other.incarnation
            for name, other in self.machines.items()
            if other.node is not None and self._linked(machine, other)
        }

    def replacement_requests(self) -> dict[NodeId, int]:
        """Return the incarnation of the damaged data of each running replica, 0 for a replica without damage."""
        return {name: machine.replaces for name, machine in self.machines.items() if machine.node is not None}

    def transmit(self, sender: NodeId, to: NodeId, message: AnyMessage) -> None:
        """Put a message on the network, if the sender has a link with whom it is for."""
        machine, other = self.machines[sender], self.machines[to]
        if self._linked(machine, other):
            shown = Shown(machine.incarnation, other.incarnation, machine.options.grant_terms)
            self.network.send(sender, to, message, self.faults, shown)

    def _linked(self, machine: SimulatedMachine, other: SimulatedMachine) -> bool:
        """Whether the handshake of `machine` accepts `other`: its data, and the settings of its lease."""
        same = machine.options.grant_terms == other.options.grant_terms
        return same and machine.recognises(other.name, other.incarnation)

    def _deliver(self, sender: NodeId, to: NodeId, frame: bytes, shown: Shown) -> None:
        receiver = self.machines[to]
        expected = receiver.incarnation == shown.receiver and receiver.options.grant_terms == shown.terms
        if not expected or not receiver.recognises(sender, shown.sender):
            return
        message = wire.decode(frame)
        self.note(to, f"from {sender}", message)
        self.machines[to].happens(lambda node: node.receive(sender, message))

    # Faults

    def _strike(self, strike: Strike) -> None:
        if not self._faulty:
            return
        victims = self._victims(strike)
        if not victims and strike.kind not in EVERYWHERE:
            return
        self.struck[strike.kind] += 1
        over = moment(strike.at_ms + strike.length_ms)
        if strike.kind is StrikeKind.ECHO:
            self.network.echo()
        if strike.kind is StrikeKind.SETTINGS:
            self._change_settings(over, strike.length_ms)
        names = [victim.name for victim in victims]
        self.note("", f"strike {strike.kind}", names)
        cut = links(strike.kind, names, list(self.machines))
        if cut:
            self.network.cut(cut)
            self.world.at(over, lambda: self.network.mend(cut) if self._faulty else None)
        for machine in victims:
            self._hit(machine, strike, over)

    def _victims(self, strike: Strike) -> list[SimulatedMachine]:
        if strike.victims == (LEADER,):
            leader = self.leader()
            return [leader] if leader is not None else []
        return [self.machines[name] for name in strike.victims]

    def _hit(self, machine: SimulatedMachine, strike: Strike, over: Time) -> None:
        match strike.kind:
            case StrikeKind.CRASH:
                machine.crash()
                self.world.at(over, machine.start)
            case StrikeKind.STOP:
                self._stop(machine, over)
            case StrikeKind.STORM:
                self._storm(machine, over)
            case StrikeKind.PAUSE:
                machine.pause()
                self.world.at(over, machine.resume)
            case StrikeKind.RELAY:
                self._relay(machine)
            case StrikeKind.DISK:
                machine.disk_fails += 1
                self.world.at(over, lambda: self._mend_disk(machine))
            case StrikeKind.FULL:
                self._fill_disk(machine, over)
            case StrikeKind.FREEZE:
                self._freeze(machine, over)
            case _:
                pass  # the links are cut

    def _stop(self, machine: SimulatedMachine, over: Time) -> None:
        """Unless it dies before, a process that shuts down dies in peace."""
        life = machine.life
        machine.stopping = True
        machine.happens(Node.hand_over)
        rng = self.scenario.rng(f"stop/{machine.name}/{life}")
        self.world.between_ms(rng, SHUTDOWN_MS, lambda: machine.crash() if machine.life == life else None)
        self.world.at(max(over, self.world.now + moment(SHUTDOWN_MS[1])), machine.start)

    def _relay(self, machine: SimulatedMachine) -> None:
        if self._relayed is not None:
            self.network.mend(self._isolation(self._relayed))
            self._relayed.doomed = False
            self._relayed.start()
        self._relayed = machine
        self.network.cut(self._isolation(machine))
        machine.doomed = self.scenario.rng(f"relay/{self.world.now}").random() < 0.5

    def _isolation(self, machine: SimulatedMachine) -> list[Link]:
        return links(StrikeKind.CUT, [machine.name], list(self.machines))

    def _fill_disk(self, machine: SimulatedMachine, over: Time) -> None:
        """The space is low, and after a while perhaps critical, until it is over. A new process finds room."""
        life, rng = machine.life, self.scenario.rng(f"full/{machine.name}/{self.world.now}")

        def becomes(space: DiskSpace) -> None:
            if machine.life == life and (self._faulty or space is DiskSpace.AMPLE):
                machine.happens(lambda node: node.space_changed(space))

        becomes(DiskSpace.LOW)
        if rng.random() < 0.5:
            self.world.at(self.world.now + (over - self.world.now) // 2, partial(becomes, DiskSpace.CRITICAL))
        self.world.at(over, partial(becomes, DiskSpace.AMPLE))

    def _freeze(self, machine: SimulatedMachine, over: Time) -> None:
        """Stop the clock, and perhaps the process with it."""
        machine.freeze()
        self.world.at(over, lambda: machine.thaw() if self._faulty else None)
        if self.scenario.rng(f"freeze/{machine.name}/{self.world.now}").random() < 0.5:
            machine.pause()
            self.world.at(over, machine.resume)

    def _change_settings(self, give_up: Time, length_ms: int) -> None:
        """Wait for a leader with a lease, and restart all others with other settings, often the shortest lease; some
        start several times before the leases of before have ended. Restart the leader after `length_ms`."""
        leader = self.leader()
        if leader is None or leader.node is None or not leader.node.replica.lease_holds(leader.clock()):
            if self._faulty and self.world.now < give_up:
                self.world.after_ms(1, partial(self._change_settings, give_up, length_ms))
            return
        rng = self.scenario.rng(f"settings/{self.world.now}")
        others = [terms for terms in ({}, *self.scenario.terms) if terms != leader.settings]
        if not others:
            return
        settings = rng.choice((rng.choice(others), min(others, key=self._lease_ms)))
        times, within_ms = rng.choice((1, 2, 3)), rng.choice((5, leader.options.lease_ms / 5))
        for machine in self.machines.values():
            machine.settings = settings
            for _ in range(times if machine is not leader else 0):
                self.world.between_ms(rng, (0, within_ms), partial(self._restart, machine))
        self.world.after_ms(length_ms, partial(self._restart, leader))

    def _lease_ms(self, settings: dict[str, int]) -> int:
        return Options(**self.scenario.options | settings).lease_ms

    def _restart(self, machine: SimulatedMachine) -> None:
        if self._faulty and machine.node is not None:
            machine.crash()
            machine.start()

    def _mend_disk(self, machine: SimulatedMachine) -> None:
        machine.disk_fails = max(0, machine.disk_fails - 1)

    def _storm(self, machine: SimulatedMachine, over: Time | None) -> None:
        """Die and start again until `over`; None for as long as only the core is whole."""
        if self._whole if over is None else not self._faulty or self.world.now >= over:
            return
        machine.crash()
        machine.start()
        rng = self.scenario.rng(f"storm/{machine.name}/{machine.life}")
        up_ms = STORM_UP_MS if over is not None else ENDLESS_STORM_UP_MS
        self.world.between_ms(rng, up_ms, lambda: self._storm(machine, over))

    def _break_for_good(self, machine: SimulatedMachine) -> None:
        """Leave a machine in a state that must not hinder the others."""
        rng = self.scenario.rng(f"broken/{machine.name}")
        kind = rng.choice(
            (StrikeKind.CRASH, StrikeKind.STORM, StrikeKind.PAUSE, StrikeKind.CUT, StrikeKind.MUTE, StrikeKind.DEAF)
        )
        self.note(machine.name, f"stays broken: {kind}")
        machine.start()
        machine.resume()
        self.network.cut(links(kind, [machine.name], list(self.machines)))
        if kind is StrikeKind.CRASH:
            machine.crash()
        elif kind is StrikeKind.PAUSE:
            machine.pause()
        elif kind is StrikeKind.STORM:
            self._storm(machine, None)
