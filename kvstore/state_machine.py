"""The state machine: what was chosen, applied in order, gives the same state on every replica.

Deterministic (rule 21): no clock, no randomness, no order of a set. The request ids of bundles are part of the state,
so that a bundle that was ordered twice, because its origin repeated it to a new leader, is applied once (rule 22).
"""

from typing import assert_never

from kvstore.commands import Bundle, Command, Delete, DeleteResult, NotFound, Put, PutResult, Result
from kvstore.requests import Record


class Origin:
    """Which bundles of one node have been applied: all below `settled` count as done, and those in `applied`."""

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self._settled = 1
        self._applied: set[int] = set()

    def admit(self, sequence: int, settled_below: int) -> bool:
        """True for a bundle that has not been applied; it is noted as applied."""
        if sequence < self._settled or sequence in self._applied:
            return False
        self._applied.add(sequence)
        while self._settled < settled_below:
            self._applied.discard(self._settled)
            self._settled += 1
        return True


class StateMachine:
    """Keys and their records, and a revision that grows by one with every change."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self.revision = 0
        self._origins: dict[str, Origin] = {}

    def get(self, key: bytes) -> Record | None:
        """The present record of `key`."""
        return self.records.get(key)

    def apply(self, bundle: Bundle) -> list[Result] | None:
        """The results of the bundle's commands, in order. None when it was applied before, or comes from an earlier
        life of its origin: nobody waits for it any more."""
        origin = self._origins.get(bundle.origin)
        if origin is None or origin.boot < bundle.boot:
            origin = self._origins[bundle.origin] = Origin(bundle.boot)
        if bundle.boot < origin.boot or not origin.admit(bundle.sequence, bundle.settled_below):
            return None
        return [self._apply(command) for command in bundle.commands]

    def _apply(self, command: Command) -> Result:
        match command:
            case Put(key=key, value=value):
                return self._put(key, value)
            case Delete(key=key):
                return self._delete(key)
            case _:
                assert_never(command)

    def _put(self, key: bytes, value: bytes) -> PutResult:
        self.revision = revision = self.revision + 1
        old = self.records.get(key)
        if old is None:
            record = Record(value, revision, revision, 1)
        else:
            record = Record(value, revision, old.create_revision, old.version + 1)
        self.records[key] = record
        return PutResult(revision, record.version)

    def _delete(self, key: bytes) -> DeleteResult | NotFound:
        old = self.records.pop(key, None)
        if old is None:
            return NotFound(self.revision)
        self.revision += 1
        return DeleteResult(self.revision, old.version, old.revision)
