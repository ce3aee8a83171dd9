"""Clients of a simulated cluster, and the history of what they asked and were told."""

from bench.linearizability import FOREVER, Operation
from kvstore.commands import Command, Delete, DeleteResult, Put, Result
from kvstore.node import Node
from kvstore.requests import Consistency, Outcome, ReadAnswer, Refused
from tests.simulation.world import Cluster, Machine


class Client:
    """One closed loop: an operation on a random key at a random replica, the answer, a short thought, the next."""

    def __init__(self, cluster: Cluster, name: int, history: list[Operation], keys: int) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._name = name
        self._history = history
        self._keys = keys
        self._count = 0
        self.answered = 0
        self.stopped = False
        self._world.between_ms((0, 20), self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        self._count += 1
        rng = self._world.rng
        machine = rng.choice(list(self._cluster.machines.values()))
        key = b"k%d" % rng.randrange(self._keys)
        kind = rng.choice(("put", "put", "get", "get", "get", "quorum", "delete"))
        call = Call(self, machine, kind, key, b"%d.%d" % (self._name, self._count))
        self._world.after_ms(4000, call.give_up)
        machine.happens(call.begin)

    def finished(self, operation: Operation | None) -> None:
        """A call ended; None when it left no trace."""
        if operation is not None:
            self._history.append(operation)
            self.answered += operation.returned != FOREVER
        self._world.between_ms((1, 30), self._next)


class Call:
    """One operation under way. A replica that dies answers never: then the outcome is unknown."""

    def __init__(self, client: Client, machine: Machine, kind: str, key: bytes, value: bytes) -> None:
        self._client = client
        self._machine = machine
        self._world = client._world
        self._kind = "get" if kind == "quorum" else kind
        self._consistency = Consistency.QUORUM if kind == "quorum" else Consistency.LINEARIZABLE
        self._key = key
        self._value = value
        self._called = self._world.now
        self._done = False

    def begin(self, node: Node) -> None:
        """The request reaches the replica."""
        if self._kind == "get":
            node.read(self._key, self._consistency, self._answered)
        else:
            command: Command = Put(self._key, self._value) if self._kind == "put" else Delete(self._key)
            node.write(command, self._answered)

    def give_up(self) -> None:
        """No answer came."""
        if not self._done:
            self._done = True
            self._client.finished(self._operation(FOREVER, None, None))

    def _answered(self, answer: ReadAnswer | Result | Refused) -> None:
        if self._done:
            return
        self._done = True
        if isinstance(answer, Refused):
            unknown = answer.outcome is Outcome.UNKNOWN
            self._client.finished(self._operation(FOREVER, None, None) if unknown else None)
        elif isinstance(answer, ReadAnswer):
            seen = answer.record.value if answer.record is not None else None
            self._client.finished(self._operation(self._world.now, seen, None))
        else:
            self._client.finished(self._operation(self._world.now, None, isinstance(answer, DeleteResult)))

    def _operation(self, returned: int, seen: bytes | None, found: bool | None) -> Operation:
        value = self._value if self._kind == "put" else seen
        found = found if self._kind == "delete" else None
        return Operation(self._kind, self._key, value, self._called, returned, found)
