"""Clients of a simulated cluster, and the history of what they asked and were told."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.linearizability import FOREVER, Operation
from kvstore.commands import Delete, DeleteResult, NotFound, NotReconfigured, Put, Reconfigured, Result
from kvstore.node import Node
from kvstore.requests import Consistency, Outcome, ReadAnswer, Refused
from tests.simulation.cluster import Cluster
from tests.simulation.machine import Machine

KINDS = ("put", "put", "put", "get", "get", "get", "quorum", "stale", "delete")


class History:
    """What was asked and told, and the highest revision that anybody was told: whoever asks later is told no lower one,
    and a change has a higher one."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.under_way: dict[Call, None] = {}
        self.revision = 0

    def close(self) -> None:
        """What is still under way may have taken effect."""
        for call in list(self.under_way):
            call.give_up()

    def told(self, revision: int, floor: int, *, change: bool) -> None:
        """An answer came to a request that was made when the highest revision was `floor`."""
        assert revision >= floor + change, f"revision {revision} was answered after {floor}: it goes back in time"
        self.revision = max(self.revision, revision)


class Client:
    """One closed loop: an operation on a random key at a random replica, the answer, a short thought, the next."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        history: History,
        *,
        machines: Sequence[Machine] | None = None,
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
        self._again: Request | None = None
        self.answered = 0
        self.stopped = False
        self._think()

    def _next(self) -> None:
        if self.stopped:
            return
        machine = self._rng.choice(self.machines)
        request = self._again or self._draw()
        self._again = None
        call = Call(self._cluster, self, machine, request)
        self.history.under_way[call] = None
        self._world.after_ms(self._cluster.scenario.patience_ms, call.give_up)
        machine.happens(call.begin)

    def _draw(self) -> "Request":
        self._count += 1
        key = b"k%d" % self._rng.randrange(self._cluster.scenario.keys)
        return Request(self._rng.choice(self._kinds), key, f"{self.name}.{self._count}".encode())

    def finished(self, call: "Call", operation: Operation | None) -> None:
        """A call ended; None when it left no trace. What was refused or is unknown is often tried again, as people do:
        that is another operation with the same value."""
        if operation is not None and call.request.kind != "stale":
            self.history.operations.append(operation)
        if operation is not None and operation.returned != FOREVER:
            self.answered += 1
        elif self._rng.random() < 0.5:
            self._again = call.request
        self._think()

    def _think(self) -> None:
        self._world.between_ms(self._rng, (0.1, self._cluster.scenario.think_ms), self._next)


class Request(NamedTuple):
    """What is asked: put, delete, or a get, by the kind of its consistency. The value is for put."""

    kind: str
    key: bytes
    value: bytes


class Call:
    """One operation under way."""

    def __init__(self, cluster: Cluster, client: Client, machine: Machine, request: Request) -> None:
        self._cluster = cluster
        self._client = client
        self._machine = machine
        self.request = request
        self._called = cluster.world.now
        self._floor = client.history.revision
        self._done = False

    def begin(self, node: Node) -> None:
        """The request reaches the replica."""
        kind, key, value = self.request
        match kind:
            case "put":
                node.write(Put(key, value), self._wrote)
            case "delete":
                node.write(Delete(key), self._wrote)
            case _:
                node.read(key, Consistency.LINEARIZABLE if kind == "get" else Consistency(kind), self._read)

    def give_up(self) -> None:
        """No answer came: the outcome is unknown."""
        if not self._done:
            self._finish(self._operation(FOREVER, None, None))

    def _read(self, answer: ReadAnswer | Refused) -> None:
        if isinstance(answer, Refused):
            self._finish(None)
            return
        self._cluster.answered(self._machine, self.request.key, answer)
        if self.request.kind != "stale" and not self._done:
            self._client.history.told(answer.revision, self._floor, change=False)
        seen = answer.record.value if answer.record is not None else None
        self._finish(self._operation(self._cluster.world.now, seen, None))

    def _wrote(self, answer: Result | Refused) -> None:
        assert not isinstance(answer, Reconfigured | NotReconfigured)
        if not isinstance(answer, Refused):
            change = not isinstance(answer, NotFound)
            self._client.history.told(answer.revision, self._floor, change=change)
            self._finish(self._operation(self._cluster.world.now, None, isinstance(answer, DeleteResult)))
        elif answer.outcome is Outcome.UNKNOWN:
            self._finish(self._operation(FOREVER, None, None))
        else:
            self._finish(None)

    def _finish(self, operation: Operation | None) -> None:
        if self._done:
            return
        self._done = True
        del self._client.history.under_way[self]
        self._cluster.note("", f"{self.request.kind} {self.request.key!r} at {self._machine.name} ends", operation)
        self._client.finished(self, operation)

    def _operation(self, returned: int, seen: bytes | None, found: bool | None) -> Operation:
        kind, key, value = self.request
        if kind == "put":
            return Operation(kind, key, value, self._called, returned)
        return Operation("delete" if kind == "delete" else "get", key, seen, self._called, returned, found)
