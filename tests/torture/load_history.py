"""The history of a load: everything that was asked and answered, for the checker."""

import msgspec

from bench.load.connection import Connection
from bench.load.wire import Answer, Requests, parse
from kvstore.client import NO_SUCH_KEY
from tests.torture.faults.history import Call, Outcome


class _Problem(msgspec.Struct):
    """What is of use in the body of an answer that is not 2xx."""

    type: str = ""
    outcome: str = "unknown"


class LoadHistory:
    """The calls of one process, in the order in which they ended. A value stands there by its name, see `Requests`."""

    def __init__(self, requests: Requests, prefix: str) -> None:
        self._requests = requests
        self._prefix = prefix
        self.calls: list[Call] = []

    def answered(self, connection: Connection, answer: bytes, now_ns: int) -> None:
        """A request has its answer."""
        outcome, value, revision = self._meaning(connection, parse(answer))
        self._add(connection, now_ns, outcome, value, revision)

    def lost(self, connection: Connection, now_ns: int) -> None:
        """A request has no answer, and gets none any more."""
        reads = connection.operation < 0
        value = None if reads else self._requests.name(connection.number)
        self._add(connection, now_ns, "refused" if reads else "unknown", value, None)

    def _meaning(self, connection: Connection, answer: Answer) -> tuple[Outcome, str | None, int | None]:
        reads = connection.operation < 0
        put = None if reads else self._requests.name(connection.number)
        if answer.status in {200, 201}:
            return "answered", self._requests.name_of(answer.body) if reads else put, answer.revision
        try:
            problem = msgspec.json.decode(answer.body, type=_Problem)
        except msgspec.MsgspecError:
            problem = _Problem()
        if reads:
            absent = answer.status == 404 and problem.type == NO_SUCH_KEY
            return "answered" if absent else "refused", None, None
        return "refused" if problem.outcome == "failed" else "unknown", put, None

    def _add(
        self, connection: Connection, now_ns: int, outcome: Outcome, value: str | None, revision: int | None
    ) -> None:
        operation = connection.operation
        reads = operation < 0
        key = f"{self._prefix}{~operation if reads else operation}"
        replica = f"{connection.address[0]}:{connection.address[1]}"
        self.calls.append(
            Call("get" if reads else "put", key, replica, connection.sent_ns, now_ns, outcome, value, revision)
        )
