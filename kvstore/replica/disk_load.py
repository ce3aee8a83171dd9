"""The load on the disk of this replica: which messages and commands it takes while the disk is slow or full."""

from kvstore.api.commands import Command, Idempotent, LeasedPut, Operation, Put, Transact
from paxos.messages import Accept, AnyMessage, Learn, Propose, SnapshotPage
from paxos.ready import Write
from storage.base import DiskSpace

MAX_UNSTORED_BYTES = 64 << 20
"""Limit on the bytes of values that are not yet durable. Above it, Accept and Learn messages are dropped: their senders
repeat them, or this replica fetches the slots once the disk has caught up (rule 26)."""
SMALL_BYTES = 16 << 10
"""Largest message, in bytes of values, that is taken while the disk is full. No-ops, leases and deletions fit."""


class DiskLoad:
    """The values that wait for the disk, and the space that is left on it."""

    def __init__(self) -> None:
        self.space = DiskSpace.AMPLE
        self._unstored_bytes = 0

    def submitted(self, write: Write) -> None:
        """Count a write that was handed to the disk."""
        self._unstored_bytes += _value_bytes(write)

    def stored(self, write: Write) -> None:
        """Count a write as durable."""
        self._unstored_bytes -= _value_bytes(write)

    def drops(self, message: AnyMessage) -> bool:
        """Return True if the disk is too slow or too full to store `message`. Its sender repeats it."""
        if self._unstored_bytes > MAX_UNSTORED_BYTES and isinstance(message, Accept | Learn):
            return True
        if self.space is DiskSpace.AMPLE or _size_bytes(message) <= SMALL_BYTES:
            return False
        return self.space is DiskSpace.CRITICAL or isinstance(message, Propose)

    def refuses(self, command: Command) -> bool:
        """Return True if the disk has no room for `command`."""
        return self.space is not DiskSpace.AMPLE and _puts(command)


def _puts(command: Command | Operation) -> bool:
    """Return True if `command` may put a value. Deletions, leases and locks are small, and help to make room."""
    match command:
        case Put() | LeasedPut():
            return True
        case Transact(then=then, otherwise=otherwise):
            return any(map(_puts, (*then, *otherwise)))
        case Idempotent(command=command):
            return _puts(command)
        case _:
            return False


def _size_bytes(message: AnyMessage) -> int:
    match message:
        case Accept(value=value):
            return len(value)
        case Learn(entries=entries):
            return sum(len(entry.value) for entry in entries)
        case Propose(payloads=payloads):
            return sum(map(len, payloads))
        case SnapshotPage(rows=rows):
            return len(rows)
        case _:
            return 0


def _value_bytes(write: Write) -> int:
    return sum(len(entry.value) for entry in write.accepts)
