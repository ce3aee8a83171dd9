"""Leases, what hangs on them, and who says that they are over.

All of it stands in records like any other (stored, sent to peers, backed up, compacted, each with its share of the
digest), under keys that begin with byte 0, which no client may use. What is here is an index of these records, made
anew wherever they are loaded.

    0 1 lease           a lease: how long it lives, and whether it ends when nothing hangs on it any more
    0 2 lease key       `key` goes with the lease
    0 3 fence name      a place in the queue for the lock `name`: the lease that has it, and a value
    0 4 lease number    the answer to a request that is done once, see `kvstore.state_machine.idempotency`
    0 5                 the leader that says which leases are over
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from kvstore.api.commands import Record

_OWN = b"\0"
_LEASE, _KEY, _PLACE, _ANSWER = b"\0\1", b"\0\2", b"\0\3", b"\0\4"
LEADER_KEY = b"\0\5"
_NUMBER = struct.Struct(">Q")
_NUMBERS = struct.Struct(">QQ")
_BEHIND_NUMBER = len(_LEASE) + _NUMBER.size


class LeaseTerms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of a lease. `bound`: it was granted for a key or a place, and ends when nothing hangs on it any more."""

    ttl_ms: int
    bound: bool


class QueueEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whose place in a queue it is, and what its holder has to say."""

    lease: int
    value: bytes


class IndexedLease(msgspec.Struct):
    """A lease that lives. `version` grows each time that it is kept alive."""

    terms: LeaseTerms
    version: int
    keys: set[bytes]
    places: dict[int, bytes]
    """The name of the lock for each fence."""
    answers: set[int]
    top: int = 0
    """The highest number that was answered."""

    @property
    def size(self) -> int:
        """So many records it has: its own, and what hangs on it."""
        return 1 + len(self.keys) + len(self.places) + len(self.answers)

    def records(self, lease: int) -> Iterator[bytes]:
        """The keys of all records of it, its own last."""
        return chain(
            (held_key(lease, key) for key in sorted(self.keys)),
            (place_key(fence, name) for fence, name in sorted(self.places.items())),
            (answer_key(lease, number) for number in sorted(self.answers)),
            (lease_key(lease),),
        )


def is_own(key: bytes) -> bool:
    """Whether it is the key of a record that is the store's own."""
    return key.startswith(_OWN)


def lease_key(lease: int) -> bytes:
    """Under which a lease is."""
    return _LEASE + _NUMBER.pack(lease)


def held_key(lease: int, key: bytes) -> bytes:
    """Under which it stands that `key` goes with `lease`."""
    return _KEY + _NUMBER.pack(lease) + key


def place_key(fence: int, name: bytes) -> bytes:
    """Under which a place for the lock `name` is."""
    return _PLACE + _NUMBER.pack(fence) + name


def answer_key(lease: int, number: int) -> bytes:
    """Under which an answer is."""
    return _ANSWER + _NUMBERS.pack(lease, number)


_encode = msgspec.msgpack.Encoder().encode
_decode_terms = msgspec.msgpack.Decoder(LeaseTerms).decode
_decode_place = msgspec.msgpack.Decoder(QueueEntry).decode


def pack(value: LeaseTerms | QueueEntry) -> bytes:
    """As it stands in a record."""
    return _encode(value)


class LeaseIndex:
    """The index."""

    def __init__(self, records: Iterable[tuple[bytes, Record]] = ()) -> None:
        """Of these records of the store's own."""
        self.leases: dict[int, IndexedLease] = {}
        self.lease_of: dict[bytes, int] = {}
        """Of each key that has one."""
        self.locks: dict[bytes, dict[int, QueueEntry]] = {}
        """For each lock that is held its places by fence, in order: who comes first has it."""
        self.moves = 0
        """So many places in queues came or went."""
        self.renewed: list[int] = []
        """The leases that were granted or kept alive since somebody took this list."""
        for key, record in sorted(records):  # leases come before what hangs on them
            self.put(key, record)

    def put(self, key: bytes, record: Record) -> None:
        """There is this record now."""
        kind, value = key[:2], record.value
        if kind == LEADER_KEY:
            return
        (number,) = _NUMBER.unpack_from(key, len(kind))
        rest = key[_BEHIND_NUMBER:]
        if kind == _LEASE:
            self.renewed.append(number)
            lease = self.leases.get(number)
            if lease is None:
                self.leases[number] = IndexedLease(_decode_terms(value), record.version, set(), {}, set())
            else:
                lease.version = record.version
        elif kind == _KEY:
            self.leases[number].keys.add(rest)
            self.lease_of[rest] = number
        elif kind == _PLACE:
            place = _decode_place(value)
            self.moves += 1
            self.leases[place.lease].places[number] = rest
            self.locks.setdefault(rest, {})[number] = place
        else:
            self._put_answer(self.leases[number], *_NUMBER.unpack(rest))

    def delete(self, key: bytes) -> None:
        """The record is gone."""
        kind = key[:2]
        (number,) = _NUMBER.unpack_from(key, len(kind))
        rest = key[_BEHIND_NUMBER:]
        if kind == _LEASE:
            del self.leases[number]
        elif kind == _KEY:
            self.leases[number].keys.remove(rest)
            del self.lease_of[rest]
        elif kind == _PLACE:
            queue = self.locks[rest]
            self.moves += 1
            del self.leases[queue.pop(number).lease].places[number]
            if not queue:
                del self.locks[rest]
        else:
            self.leases[number].answers.remove(*_NUMBER.unpack(rest))

    def holder(self, name: bytes) -> tuple[int, QueueEntry] | None:
        """Who has the lock `name`: the fence, and the place."""
        return next(iter(self.locks.get(name, {}).items()), None)

    @staticmethod
    def _put_answer(lease: IndexedLease, number: int) -> None:
        lease.answers.add(number)
        lease.top = max(lease.top, number)
