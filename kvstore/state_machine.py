"""The state machine: what was chosen, applied in order, gives the same state on every replica.

Deterministic (rule 21): no clock, no randomness, no order of a set. The request ids of bundles are part of the state,
so that a bundle that was ordered twice, because its origin repeated it to a new leader, is applied once (rule 22).
"""

import struct
import zlib
from typing import assert_never

import msgspec

from kvstore.commands import (
    Bundle,
    Command,
    Delete,
    DeleteResult,
    NotFound,
    NotReconfigured,
    Put,
    PutResult,
    Reconfigure,
    Reconfigured,
    Result,
)
from kvstore.members import Roster, RosterEpoch, in_force_from, refusal
from kvstore.requests import Record
from paxos.types import Slot
from storage.base import Change

RECORD_BYTES = 64
"""What a record takes beside its key and value, as far as the quota is concerned."""

DIGEST_MASK = 2**64 - 1
"""A digest is a sum modulo one more than this."""
_REVISIONS = struct.Struct("<QQQ")


class Origin:
    """Which bundles of one node have been applied: all below `settled` count as done, and those in `applied`."""

    def __init__(self, boot: int, settled: int = 1, applied: tuple[int, ...] = ()) -> None:
        self.boot = boot
        self.settled = settled
        self.applied = set(applied)

    def admit(self, sequence: int, settled_below: int) -> bool:
        """True for a bundle that has not been applied; it is noted as applied."""
        if sequence < self.settled or sequence in self.applied:
            return False
        self.applied.add(sequence)
        while self.settled < settled_below:
            self.applied.discard(self.settled)
            self.settled += 1
        return True


class _PackedOrigin(msgspec.Struct, frozen=True, array_like=True):
    node: str
    boot: int
    settled: int
    applied: tuple[int, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_PackedOrigin])


class StateMachine:
    """Keys and their records, and a revision that grows by one with every change."""

    def __init__(self, epochs: list[RosterEpoch]) -> None:
        """`epochs`: the members that the cluster begins with, see `kvstore.members`."""
        self.epochs = epochs
        """Who decides the next slots; the last may be not in force yet."""
        self.records: dict[bytes, Record] = {}
        self.revision = 0
        self.digest = 0
        """Sum of `digest_of` over all records: equal states have equal ones, in whatever order they were made."""
        self.size_bytes = 0
        """What the records take: keys, values and `RECORD_BYTES` each."""
        self.superseded_bytes = 0
        """What all that was put and is not there any more took, and the deletions."""
        self.changes: list[Change] = []
        """What was done since somebody took this list, in order of revision."""
        self._origins: dict[str, Origin] = {}

    def get(self, key: bytes) -> Record | None:
        """The present record of `key`."""
        return self.records.get(key)

    def growth(self, key: bytes, value: bytes) -> int:
        """By how much a put would change `size_bytes`."""
        old = self.records.get(key)
        return len(value) - len(old.value) if old is not None else _size(key, value)

    @property
    def roster(self) -> Roster:
        """The members, by the last change of them."""
        return self.epochs[-1].roster if self.epochs else Roster()

    def apply(self, bundle: Bundle, slot: Slot) -> list[Result] | None:
        """The results of the bundle's commands, in order. None when it was applied before, or comes from an earlier
        life of its origin: nobody waits for it any more. `slot` is where it was ordered."""
        origin = self._origins.get(bundle.origin)
        if origin is None or origin.boot < bundle.boot:
            origin = self._origins[bundle.origin] = Origin(bundle.boot)
        if bundle.boot < origin.boot or not origin.admit(bundle.sequence, bundle.settled_below):
            return None
        return [self._apply(command, slot) for command in bundle.commands]

    def load(self, change: Change) -> None:
        """Take over what `change` once did. In order of revision."""
        key, value = change.key, change.value
        old = self.records.pop(key, None)
        if old is not None:
            self._forget(key, old)
        self.revision = change.revision
        if value is None:
            self.superseded_bytes += _size(key, b"")
        else:
            self._store(key, Record(value, change.revision, change.create_revision, change.version))

    def pack_origins(self) -> bytes:
        """The part of the state that is not in records."""
        return _encoder.encode(
            [
                _PackedOrigin(node, origin.boot, origin.settled, tuple(sorted(origin.applied)))
                for node, origin in sorted(self._origins.items())
            ]
        )

    def unpack_origins(self, packed: bytes) -> None:
        """Take over what `pack_origins` made. Raises msgspec.DecodeError on anything else."""
        self._origins = {
            origin.node: Origin(origin.boot, origin.settled, origin.applied) for origin in _decoder.decode(packed)
        }

    def _apply(self, command: Command, slot: Slot) -> Result:
        match command:
            case Put(key=key, value=value):
                return self._put(key, value)
            case Delete(key=key):
                return self._delete(key)
            case Reconfigure(roster=roster):
                return self._reconfigure(roster, slot)
            case _:
                assert_never(command)

    def _put(self, key: bytes, value: bytes) -> PutResult:
        """Written out, because it is most of what a PUT costs on every replica: `_forget` and `_store` in one."""
        self.revision = revision = self.revision + 1
        records = self.records
        old = records.get(key)
        if old is None:
            record = Record(value, revision, revision, 1)
            superseded, forgotten = 0, 0
            self.size_bytes += len(key) + len(value) + RECORD_BYTES
        else:
            record = Record(value, revision, old.create_revision, old.version + 1)
            superseded, forgotten = old.revision, digest_of(key, old)
            self.size_bytes += len(value) - len(old.value)
            self.superseded_bytes += len(key) + len(old.value) + RECORD_BYTES
        records[key] = record
        self.digest = (self.digest - forgotten + digest_of(key, record)) & DIGEST_MASK
        self.changes.append(Change(revision, key, value, record.create_revision, record.version, superseded))
        return PutResult(revision, record.version)

    def _delete(self, key: bytes) -> DeleteResult | NotFound:
        old = self.records.pop(key, None)
        if old is None:
            return NotFound(self.revision)
        self._forget(key, old)
        self.revision += 1
        self.superseded_bytes += _size(key, b"")
        self.changes.append(Change(self.revision, key, None, 0, 0, old.revision))
        return DeleteResult(self.revision, old.version, old.revision)

    def _reconfigure(self, roster: Roster, slot: Slot) -> Reconfigured | NotReconfigured:
        why = refusal(self.epochs, roster, slot)
        if why is not None:
            return NotReconfigured(why)
        self.epochs = [self.epochs[-1], RosterEpoch(in_force_from(slot), roster)]
        return Reconfigured(roster, self.epochs[-1].first)

    def _store(self, key: bytes, record: Record) -> None:
        self.records[key] = record
        self.digest = (self.digest + digest_of(key, record)) & DIGEST_MASK
        self.size_bytes += _size(key, record.value)

    def _forget(self, key: bytes, record: Record) -> None:
        self.digest = (self.digest - digest_of(key, record)) & DIGEST_MASK
        size = _size(key, record.value)
        self.size_bytes -= size
        self.superseded_bytes += size


def digest_of(key: bytes, record: Record) -> int:
    """A record's share of the digest, 32 bits."""
    numbers = _REVISIONS.pack(record.revision, record.create_revision, record.version)
    return zlib.crc32(record.value, zlib.crc32(key, zlib.crc32(numbers)))


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + RECORD_BYTES
