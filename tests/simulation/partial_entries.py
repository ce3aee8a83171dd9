"""Actors for entries that are applied in part, and for leases that end with what hangs on them."""

from functools import partial

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    Command,
    Compare,
    Delete,
    Get,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    LeasedPut,
    LeaseGranted,
    LeaseNotFound,
    Put,
    Relation,
    ReleaseLock,
    Result,
    Target,
    Transact,
)
from kvstore.api.errors import Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.replica.node import Node
from kvstore.replica.proposal_queue import WriteReply
from paxos.ready import Ready
from paxos.types import MS, Time
from tests.simulation.clients import OperationHistory
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.simulation.rarity import Rarity

KEYS = (b"p0", b"p1")
TTLS_MS = (100, 300)
ENTRY = 12
"""Keys that a command puts to make its entry long."""
LOCK = b"bound"


class PartialEntries(Rarity):
    """Commands that are sent together, so that they are applied in one entry, and that keep a lease alive or attach a
    key again; and reads of what such an entry has changed so far. A lease that was kept alive does not end early, and
    no read is older than what anybody was told before."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._leases: dict[int, tuple[Time, int]] = {}
        """When each lease was asked to be kept alive last, of what was answered, and its length in ms."""
        self._told = 0
        """The highest revision that anybody was told as the result of a write."""
        super().__init__(cluster, history, longest_ms)

    def act(self) -> None:
        """Send the commands."""
        machine = self.cluster.leader() if self.rng.random() < 0.6 else self.anyone()
        if machine is None:
            return
        if len(self._leases) < 3:
            asked = self.cluster.world.now
            grant = GrantLease(self.rng.choice(TTLS_MS))
            machine.happens(lambda node: self._write(machine, node, grant, partial(self._granted, asked)))
            return
        number = self.rng.choice(sorted(self._leases))
        asked, ttl_ms = self._leases[number]
        end = asked + int(self.rng.uniform(0.8, 1.05) * ttl_ms * MS)
        self.cluster.world.at(end, partial(self._send, machine, number))

    def _send(self, machine: SimulatedMachine, number: int) -> None:
        if self.stopped or number not in self._leases:
            return
        other = self.rng.choice(sorted(self._leases))
        value = b"%d" % self.cluster.world.now
        puts = [Put(b"w%04d" % index, value) for index in range(ENTRY)]
        commands: list[Command] = [
            LeasedPut(KEYS[0], value, number),
            LeasedPut(KEYS[1], value, other),
            Transact([], [*puts], []),
            LeasedPut(KEYS[0], value, other),
            LeasedPut(KEYS[1], value, number),
        ]
        asked = self.cluster.world.now

        def send(node: Node) -> None:
            self._write(machine, node, KeepLeaseAlive(number), partial(self._kept, number, asked))
            for command in commands:
                self._write(machine, node, command, lambda _: None)

        machine.happens(send)

    def _write(self, machine: SimulatedMachine, node: Node, command: Command, reply: WriteReply) -> None:
        self.cluster.write(machine, node, command, reply)

    def _granted(self, asked: Time, answer: Result | Refused) -> None:
        if isinstance(answer, LeaseGranted):
            self._leases[answer.lease] = asked, answer.ttl_ms

    def _kept(self, number: int, asked: Time, answer: Result | Refused) -> None:
        """A lease that is gone was not kept alive within its length."""
        if number not in self._leases:
            return
        before, ttl_ms = self._leases[number]
        if isinstance(answer, LeaseGranted):
            self._leases[number] = max(before, asked), ttl_ms
            for share in (0.2, 0.5):  # is it there?
                self.cluster.world.after_ms(share * ttl_ms, partial(self._look, number))
        elif isinstance(answer, LeaseNotFound):
            del self._leases[number]
            lived_ms = (self.cluster.world.now - before) / MS
            assert lived_ms >= ttl_ms, f"lease {number} of {ttl_ms} ms ended within {lived_ms} ms of a renewal"

    def _look(self, number: int) -> None:
        leader = self.cluster.leader()
        if not self.stopped and leader is not None:
            asked = self.cluster.world.now
            keep = KeepLeaseAlive(number)
            leader.happens(lambda node: self._write(leader, node, keep, partial(self._found, number, asked)))

    def _found(self, number: int, asked: Time, answer: Result | Refused) -> None:
        if isinstance(answer, LeaseNotFound):
            self._kept(number, asked, answer)
        elif isinstance(answer, LeaseGranted) and number in self._leases:
            before, ttl_ms = self._leases[number]
            self._leases[number] = max(before, asked), ttl_ms

    def replied(self, machine: SimulatedMachine, command: object, result: object) -> None:
        """Remember what was told."""
        self._told = max(self._told, getattr(result, "revision", 0))

    def stepped(self, machine: SimulatedMachine, ready: Ready) -> None:
        """Read before the next step what an entry is about to change; at times after a pause of the leader, in which
        others have applied all of it."""
        node = machine.node
        assert node is not None
        if not node.applies_entry or self.stopped or machine.paused:
            return
        if node.replica.lease_holds(machine.clock()) and self.rng.random() < 0.05:
            machine.pause()
            self.cluster.world.after_ms(
                self.cluster.scenario.lease_ms / 3, partial(self._resume, machine, machine.life)
            )
        elif self.rng.random() < 0.3:
            self.cluster.world.after_ms(0, partial(self._read, machine, machine.life, Consistency.STALE))
            self.cluster.world.after_ms(0, partial(self._read, machine, machine.life, Consistency.LINEARIZABLE))

    def _resume(self, machine: SimulatedMachine, life: int) -> None:
        if machine.life == life:
            machine.resume()
            self._read(machine, life, Consistency.LINEARIZABLE)

    def _read(self, machine: SimulatedMachine, life: int, consistency: Consistency) -> None:
        if machine.life == life and not machine.paused:
            key = self.rng.choice(KEYS)
            floor = self._told if consistency is Consistency.LINEARIZABLE else 0
            answered = partial(self._answered, machine, key, floor)
            machine.happens(lambda node: node.read(key, consistency, answered))

    def _answered(self, machine: SimulatedMachine, key: bytes, floor: int, answer: ReadAnswer | Refused) -> None:
        if not isinstance(answer, Refused):
            self.cluster.answered(machine, key, answer)
            assert answer.revision >= floor, f"a read at revision {answer.revision} began after one was told {floor}"


class BoundLeases(Rarity):
    """Leases that end with the last thing that hangs on them: keys and places in the queue for a lock come and go one
    after the other, and writes ask for the fencing token."""

    def __init__(self, cluster: SimulatedCluster, history: OperationHistory, longest_ms: float) -> None:
        self._held: list[AcquireResult] = []
        super().__init__(cluster, history, longest_ms)

    def act(self) -> None:
        """Send one command."""
        machine, command = self.anyone(), self._command()
        machine.happens(lambda node: self.cluster.write(machine, node, command, self._heard))

    def _command(self) -> Command:
        rng = self.rng
        if not self._held or rng.random() < 0.2:
            return AcquireLock(LOCK, 0, 1000, b"", queue=True)
        held = rng.choice(self._held[-3:])
        guard = Compare(LOCK, Target.FENCING_TOKEN, Relation.EQUAL, held.fencing_token)
        commands: tuple[Command, ...] = (
            LeasedPut(b"b0", b"", held.lease),
            LeasedPut(b"b1", b"", held.lease),
            Delete(b"b0"),
            Put(b"b1", b""),
            Transact([guard], [Put(b"b2", b"%d" % held.fencing_token)], [Get(b"b2")]),
            Transact([guard], [Put(b"b2", b"%d" % held.fencing_token)], [Get(b"b2")]),
            ReleaseLock(LOCK, held.lease),
            Idempotent(
                held.lease, rng.randrange(1, 4), rng.choice((b"", b"", b"x")), LeasedPut(b"b0", b"", held.lease)
            ),
        )
        return rng.choice(commands)

    def _heard(self, answer: Result | Refused) -> None:
        if isinstance(answer, AcquireResult):
            self._held = [*self._held[-2:], answer]
        elif isinstance(answer, LeaseNotFound):
            self._held = [held for held in self._held if held.lease != answer.lease]
