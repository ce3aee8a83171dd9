"""The history of a load by the generator of `bench`, for the checker."""

import re

import msgspec

from bench.load.connection import Connection
from bench.load.options import Mix
from bench.load.wire import FILLER, ID_BYTES
from kvstore.client import NO_SUCH_KEY
from tests.torture.history import CallKind, CallOutcome, RecordedCall

_ETAG = re.compile(rb'\r\n[Ee][Tt]ag: *"(\d+)"')


class _ErrorBody(msgspec.Struct):
    """The used fields of an answer that is not 2xx."""

    type: str = ""
    outcome: str = "unknown"


class LoadHistory:
    """The calls of a load, in the order in which they ended. A value is represented by its unique beginning."""

    def __init__(self, mix: Mix) -> None:
        self._prefix = mix.prefix
        self._rest = FILLER * (mix.value_bytes - ID_BYTES)
        self.calls: list[RecordedCall] = []

    def answered(self, connection: Connection, answer: bytes, now_ns: int) -> None:
        """Record a request with its answer."""
        outcome, value, revision = self._interpret(connection, answer)
        self._add(connection, now_ns, outcome, value, revision)

    def lost(self, connection: Connection, now_ns: int) -> None:
        """Record a request without an answer."""
        reads = connection.operation < 0
        value = None if reads else _name(connection.number)
        self._add(connection, now_ns, "refused" if reads else "unknown", value, None)

    def _interpret(self, connection: Connection, answer: bytes) -> tuple[CallOutcome, str | None, int | None]:
        head, _, body = answer.partition(b"\r\n\r\n")
        reads = connection.operation < 0
        put = None if reads else _name(connection.number)
        if head[9:12] in {b"200", b"201"}:
            revision = _ETAG.search(head)
            return "answered", self._name_of(body) if reads else put, None if revision is None else int(revision[1])
        try:
            problem = msgspec.json.decode(body, type=_ErrorBody)
        except msgspec.MsgspecError:
            problem = _ErrorBody()
        if reads:
            absent = head[9:12] == b"404" and problem.type == NO_SUCH_KEY
            return "answered" if absent else "refused", None, None
        return "refused" if problem.outcome == "failed" else "unknown", put, None

    def _name_of(self, value: bytes) -> str:
        """Return the unique beginning of a value, or the whole value if it is not of this load."""
        return (value[:ID_BYTES] if value[ID_BYTES:] == self._rest else value).decode(errors="replace")

    def _add(
        self, connection: Connection, now_ns: int, outcome: CallOutcome, value: str | None, revision: int | None
    ) -> None:
        operation = connection.operation
        reads = operation < 0
        key = f"{self._prefix}{~operation if reads else operation}"
        replica = f"{connection.address[0]}:{connection.address[1]}"
        kind: CallKind = "get" if reads else "put"
        self.calls.append(RecordedCall(kind, key, replica, connection.sent_ns, now_ns, outcome, value, revision))


def _name(number: int) -> str:
    return f"{number:016x}"
