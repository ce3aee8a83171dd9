"""Clients of a simulated cluster, and the history of what they asked and were told."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    Get,
    GrantLease,
    Idempotent,
    KeyState,
    LeaseGranted,
    NotFound,
    Put,
    PutResult,
    Relation,
    Result,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.errors import Outcome, Refused
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.api.queries import Consistency, Lookup, Scan
from kvstore.api.results import QueryAnswer, ReadAnswer, ScanAnswer
from kvstore.replica.node import Node
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.torture.linearizability import FOREVER, Operation

KINDS = (
    "put",
    "put",
    "put",
    "get",
    "get",
    "get",
    "quorum",
    "stale",
    "delete",
    "swap",
    "swap",
    "pair",
    "clear",
    "list",
    "past",
    "once",
    "once",
)

SESSION_MS = 600_000

UNORDERED = {"stale", "past", "session"}
"""What these see is compared with the log, and tells nothing about the present."""


class OperationHistory:
    """What was asked and told, and the highest revision that anybody was told: whoever asks later is told no lower one,
    and a change has a higher one."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.under_way: dict[SimulatedCall, None] = {}
        self.unsettled: dict[SimulatedClient, list[Operation]] = {}
        """What may have been done, and will be asked for once more, as the same request."""
        self.revision = 0

    def close(self) -> None:
        """What is still under way may have taken effect."""
        for call in list(self.under_way):
            call.give_up()
        for operations in self.unsettled.values():
            self.operations += operations

    def told(self, revision: int, floor: int, *, change: bool) -> None:
        """An answer came to a request that was made when the highest revision was `floor`."""
        assert revision >= floor + change, f"revision {revision} was answered after {floor}: it goes back in time"
        self.revision = max(self.revision, revision)


class SimulatedClient:
    """One closed loop: an operation on a random key at a random replica, the answer, a short thought, the next."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        name: str,
        history: OperationHistory,
        *,
        machines: Sequence[SimulatedMachine] | None = None,
        kinds: tuple[str, ...] = KINDS,
    ) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._rng = cluster.scenario.rng(f"client/{name}")
        self.name = name
        self.history = history
        self.machines = machines or list(cluster.machines.values())
        self._kinds = kinds
        self._count = 0
        self._again: SimulatedRequest | None = None
        self._session = 0
        """The lease that its requests are numbered in."""
        self._seen: dict[bytes, bytes | None] = {}
        """What each key held when it was looked at last."""
        self.answered = 0
        self.stopped = False
        self._think()

    def _next(self) -> None:
        if self.stopped:
            return
        machine = self._rng.choice(self.machines)
        request = self._again or self._draw()
        self._again = None
        call = SimulatedCall(self._cluster, self, machine, request)
        self.history.under_way[call] = None
        self._world.after_ms(self._cluster.scenario.patience_ms, call.give_up)
        machine.happens(call.begin)

    def _draw(self) -> "SimulatedRequest":
        self._count += 1
        number = self._rng.randrange(self._cluster.scenario.keys)
        key, other = b"k%d" % number, b"k%d" % ((number + 1) % self._cluster.scenario.keys)
        value = f"{self.name}.{self._count}".encode()
        kind = self._rng.choice(self._kinds)
        if kind == "once" and not self._session:
            kind = "session"
        ticket = Idempotent(self._session, self._count, value, Put(key, value)) if kind == "once" else None
        return SimulatedRequest(kind, key, value, self._seen.get(key), other, self._rng.random(), ticket)

    def granted(self, lease: int) -> None:
        """It has a lease to number its requests in."""
        self._session = lease

    def finished(self, call: "SimulatedCall", operations: Sequence[Operation]) -> None:
        """A call ended; none when it left no trace. What was refused or is unknown is often tried again, as people do:
        that is another operation with the same value; but with a number it is the same one, until it is answered."""
        if call.request.ticket is not None:
            operations = self._settled(call, operations)
        if call.request.kind not in UNORDERED:
            self.history.operations += operations
        for operation in operations:
            if operation.returned != FOREVER and operation.kind != "delete":
                self._seen[operation.key] = operation.value
        if operations and operations[0].returned != FOREVER:
            self.answered += 1
        elif self._again is None and call.request.ticket is None and self._rng.random() < 0.5:
            self._again = call.request
        self._think()

    def _settled(self, call: "SimulatedCall", operations: Sequence[Operation]) -> Sequence[Operation]:
        if operations and operations[0].returned != FOREVER:
            self.history.unsettled.pop(self, None)
            return operations
        if operations:
            self.history.unsettled[self] = list(operations)
        self._again = call.request._replace(since=call.since)
        return []

    def _think(self) -> None:
        self._world.between_ms(self._rng, (0.1, self._cluster.scenario.think_ms), self._next)


class SimulatedRequest(NamedTuple):
    """What is asked: put, delete, or a get, by the kind of its consistency; swap, to put the value if the key holds
    what is expected, and to look at it else; pair, to put it under two keys at once; clear, to delete both; list, for
    all keys; past, for the key as of a revision, `share` of all that there were; session, a lease to number requests
    in; once, a put with a number, that is repeated until it is answered: `since` says when it was first asked for, and
    the highest revision that was told then."""

    kind: str
    key: bytes
    value: bytes
    expected: bytes | None
    other: bytes
    share: float
    ticket: Idempotent | None = None
    since: tuple[int, int] | None = None


class SimulatedCall:
    """One operation under way."""

    def __init__(
        self, cluster: SimulatedCluster, client: SimulatedClient, machine: SimulatedMachine, request: SimulatedRequest
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._machine = machine
        self.request = request
        self.since = request.since or (cluster.world.now, client.history.revision)
        self._called, self._floor = self.since
        self._done = False

    def begin(self, node: Node) -> None:
        """The request reaches the replica."""
        kind, key, value, expected, other, share, ticket, _ = self.request
        match kind:
            case "session":
                self._cluster.write(self._machine, node, GrantLease(SESSION_MS), self._granted)
            case "once":
                assert ticket is not None
                swaps = share < 0.5 and expected is not None
                compare = Compare(key, Target.VALUE, Relation.EQUAL, expected or b"")
                swap = Transact([compare], [Put(key, value)], [Get(key)])
                self._cluster.write(
                    self._machine, node, replace(ticket, command=swap) if swaps else ticket, self._wrote
                )
            case "put":
                self._cluster.write(self._machine, node, Put(key, value), self._wrote)
            case "delete":
                self._cluster.write(self._machine, node, Delete(key), self._wrote)
            case "swap":
                absent = Compare(key, Target.EXISTS, Relation.EQUAL, 0)
                compare = absent if expected is None else Compare(key, Target.VALUE, Relation.EQUAL, expected)
                self._cluster.write(
                    self._machine, node, Transact([compare], [Put(key, value)], [Get(key)]), self._wrote
                )
            case "pair":
                self._cluster.write(
                    self._machine, node, Transact([], [Put(key, value), Put(other, value)], []), self._wrote
                )
            case "clear":
                both = [DeleteSpan(Span(each, each + b"\0")) for each in (key, other)]
                self._cluster.write(self._machine, node, Transact([], [*both], []), self._wrote)
            case "list":
                node.read(Scan(EVERY_KEY, 1000), Consistency.LINEARIZABLE, partial(self._looked, Scan(EVERY_KEY, 1000)))
            case "past":
                lookup = Lookup(key, 1 + int(share * node.machine.revision))
                node.read(lookup, Consistency.STALE, partial(self._looked, lookup))
            case _:
                node.read(key, Consistency.LINEARIZABLE if kind == "get" else Consistency(kind), self._read)

    def give_up(self) -> None:
        """No answer came: the outcome is unknown."""
        if not self._done:
            self._finish(self._operations(FOREVER))

    def _read(self, answer: ReadAnswer | Refused) -> None:
        if isinstance(answer, Refused):
            self._finish([])
            return
        self._cluster.answered(self._machine, self.request.key, answer)
        if self.request.kind != "stale" and not self._done:
            self._client.history.told(answer.revision, self._floor, change=False)
        seen = answer.record.value if answer.record is not None else None
        self._finish([self._got(seen)])

    def _looked(self, query: Lookup | Scan, answer: QueryAnswer | Refused) -> None:
        """A list is a get of every key, all at one moment."""
        if isinstance(answer, Refused):
            self._finish([])
            return
        self._cluster.answered(self._machine, query, answer)
        if not isinstance(answer, ScanAnswer):
            self._finish([])
            return
        if not self._done:
            self._client.history.told(answer.revision, self._floor, change=False)
        found = {each.key: each.record.value for each in answer.found if each.record is not None}
        keys = [b"k%d" % number for number in range(self._cluster.scenario.keys)]
        now = self._cluster.world.now
        self._finish([Operation("get", key, found.get(key), self._called, now) for key in keys])

    def _wrote(self, answer: Result | Refused) -> None:
        if not isinstance(answer, Refused):
            assert isinstance(answer, PutResult | DeleteResult | NotFound | DeleteSpanResult | TransactResult)
            self._client.history.told(answer.revision, self._floor, change=_is_change(answer))
            self._finish(self._answered(answer))
        elif answer.outcome is Outcome.UNKNOWN:
            self._finish(self._operations(FOREVER))
        else:
            self._finish([])

    def _answered(self, answer: Result) -> list[Operation]:
        now = self._cluster.world.now
        match answer:
            case TransactResult(succeeded=False, results=[KeyState(record=record)]):
                return [self._got(record.value if record is not None else None)]
            case DeleteResult() | NotFound():
                return self._operations(now, found=isinstance(answer, DeleteResult))
            case _:
                return self._operations(now)

    def _granted(self, answer: Result | Refused) -> None:
        if isinstance(answer, LeaseGranted):
            self._client.granted(answer.lease)
        self._finish([])

    def _finish(self, operations: Sequence[Operation]) -> None:
        if self._done:
            return
        self._done = True
        del self._client.history.under_way[self]
        self._cluster.note("", f"{self.request.kind} {self.request.key!r} at {self._machine.name} ends", operations)
        self._client.finished(self, operations)

    def _got(self, seen: bytes | None) -> Operation:
        return Operation("get", self.request.key, seen, self._called, self._cluster.world.now)

    def _operations(self, returned: int, found: bool | None = None) -> list[Operation]:
        """What the request did, or may do for ever."""
        kind, key, value, expected, other, share, _, _ = self.request
        match kind:
            case "once" if share < 0.5 and expected is not None:
                return [Operation("swap", key, value, self._called, returned, expected=expected)]
            case "once":
                return [Operation("put", key, value, self._called, returned)]
            case "put" | "swap":
                return [Operation(kind, key, value, self._called, returned, expected=expected)]
            case "pair":
                return [Operation("put", each, value, self._called, returned) for each in {key: 0, other: 0}]
            case "delete":
                return [Operation("delete", key, None, self._called, returned, found)]
            case "clear":
                return [Operation("delete", each, None, self._called, returned) for each in {key: 0, other: 0}]
            case _:
                return [Operation("get", key, None, self._called, returned)]


def _is_change(answer: PutResult | DeleteResult | NotFound | DeleteSpanResult | TransactResult) -> bool:
    match answer:
        case NotFound() | DeleteSpanResult(deleted=0) | TransactResult(succeeded=False):
            return False
        case TransactResult(results=results):
            return not all(isinstance(result, DeleteSpanResult) and not result.deleted for result in results)
        case _:
            return True
