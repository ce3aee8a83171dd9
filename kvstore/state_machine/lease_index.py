"""Client leases, and the keys, locks and kept answers that are attached to them.

All of them are stored as records, like the keys of clients: in the same storage, snapshots, backups and digest. The
keys of these internal records begin with byte 0, which no client may use. The index is built from the records, and
rebuilt after they are loaded.

    0 1 lease           a lease: its time to live, and whether it ends when nothing is attached to it any more
    0 2 lease key       `key` is attached to the lease
    0 3 token name      an entry in the queue for the lock `name`: the lease, and a value; `token` is its fencing token
    0 4 lease number    a kept answer, see `kvstore.state_machine.idempotency`
    0 5                 the leader that decides when leases expire
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from kvstore.api.commands import Record

_INTERNAL = b"\0"
_LEASE, _KEY, _QUEUE_ENTRY, _ANSWER = b"\0\1", b"\0\2", b"\0\3", b"\0\4"
LEADER_KEY = b"\0\5"
_NUMBER = struct.Struct(">Q")
_NUMBERS = struct.Struct(">QQ")
_AFTER_NUMBER = len(_LEASE) + _NUMBER.size


class LeaseTerms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Terms of a lease: its time to live, and whether it is `bound`. A bound lease was granted for one key or lock, and
    ends when nothing is attached to it any more."""

    ttl_ms: int
    bound: bool


class QueueEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry in the queue for a lock: the lease that waits or holds the lock, and the value that describes it."""

    lease: int
    value: bytes


class IndexedLease(msgspec.Struct):
    """A lease that has not ended. `version` grows each time that the lease is kept alive."""

    terms: LeaseTerms
    version: int
    keys: set[bytes]
    queue_entries: dict[int, bytes]
    """Name of the lock, by the fencing token of the entry."""
    answers: set[int]
    """Numbers of the requests whose answers are kept."""
    top: int = 0
    """Highest number whose answer was kept."""

    @property
    def size(self) -> int:
        """Number of records of the lease: its own, and those that are attached to it."""
        return 1 + len(self.keys) + len(self.queue_entries) + len(self.answers)

    def records(self, lease: int) -> Iterator[bytes]:
        """Return the keys of all records that belong to `lease`, the number of this lease; the lease's own record comes
        last."""
        return chain(
            (attached_key(lease, key) for key in sorted(self.keys)),
            (queue_entry_key(token, name) for token, name in sorted(self.queue_entries.items())),
            (answer_key(lease, number) for number in sorted(self.answers)),
            (lease_key(lease),),
        )


def is_internal(key: bytes) -> bool:
    """Return True for the key of an internal record."""
    return key.startswith(_INTERNAL)


def lease_key(lease: int) -> bytes:
    """Return the key of the record of `lease`."""
    return _LEASE + _NUMBER.pack(lease)


def attached_key(lease: int, key: bytes) -> bytes:
    """Return the key of the record that attaches `key` to `lease`."""
    return _KEY + _NUMBER.pack(lease) + key


def attached_key_in(record_key: bytes) -> bytes | None:
    """Return the key that the record under `record_key` attaches to a lease, or None for any other record."""
    return record_key[_AFTER_NUMBER:] if record_key.startswith(_KEY) else None


def queue_entry_key(fencing_token: int, name: bytes) -> bytes:
    """Return the key of the entry with `fencing_token` in the queue for the lock `name`."""
    return _QUEUE_ENTRY + _NUMBER.pack(fencing_token) + name


def answer_key(lease: int, number: int) -> bytes:
    """Return the key of the kept answer to the request with this `number` of `lease`."""
    return _ANSWER + _NUMBERS.pack(lease, number)


_encode = msgspec.msgpack.Encoder().encode
_decode_terms = msgspec.msgpack.Decoder(LeaseTerms).decode
_decode_queue_entry = msgspec.msgpack.Decoder(QueueEntry).decode


def pack(value: LeaseTerms | QueueEntry) -> bytes:
    """Return `value` as it is stored in a record."""
    return _encode(value)


class LeaseIndex:
    """Index of leases, attached keys and locks."""

    def __init__(self, records: Iterable[tuple[bytes, Record]] = ()) -> None:
        """Index these internal records."""
        self.leases: dict[int, IndexedLease] = {}
        self.lease_of: dict[bytes, int] = {}
        """Lease of each key that is attached to one."""
        self.before_entry: dict[bytes, int] = {}
        """Lease of each key that the present log entry has attached or detached, before the entry; 0 for none."""
        self.locks: dict[bytes, dict[int, QueueEntry]] = {}
        """Queue for each lock that is held: its entries by fencing token. The first entry holds the lock."""
        self.queue_changes = 0
        """Number of times that an entry was added to a queue or removed from one."""
        self.renewed: list[int] = []
        """Leases that were granted or kept alive since this list was last cleared."""
        for key, record in sorted(records):  # the record of a lease comes before those that are attached to it
            self.put(key, record)

    def put(self, key: bytes, record: Record) -> None:
        """Add the internal record under `key`, or replace it."""
        kind, value = key[:2], record.value
        if kind == LEADER_KEY:
            return
        (number,) = _NUMBER.unpack_from(key, len(kind))
        rest = key[_AFTER_NUMBER:]
        if kind == _LEASE:
            self.renewed.append(number)
            lease, terms = self.leases.get(number), _decode_terms(value)
            if lease is None:
                self.leases[number] = IndexedLease(terms, record.version, set(), {}, set())
            else:
                lease.terms, lease.version = terms, record.version
        elif kind == _KEY:
            self.leases[number].keys.add(rest)
            self.before_entry.setdefault(rest, self.lease_of.get(rest, 0))
            self.lease_of[rest] = number
        elif kind == _QUEUE_ENTRY:
            entry = _decode_queue_entry(value)
            self.queue_changes += 1
            self.leases[entry.lease].queue_entries[number] = rest
            self.locks.setdefault(rest, {})[number] = entry
        else:
            self._put_answer(self.leases[number], *_NUMBER.unpack(rest))

    def delete(self, key: bytes) -> None:
        """Remove the internal record under `key`."""
        kind = key[:2]
        (number,) = _NUMBER.unpack_from(key, len(kind))
        rest = key[_AFTER_NUMBER:]
        if kind == _LEASE:
            del self.leases[number]
        elif kind == _KEY:
            self.leases[number].keys.remove(rest)
            self.before_entry.setdefault(rest, number)
            del self.lease_of[rest]
        elif kind == _QUEUE_ENTRY:
            queue = self.locks[rest]
            self.queue_changes += 1
            del self.leases[queue.pop(number).lease].queue_entries[number]
            if not queue:
                del self.locks[rest]
        else:
            self.leases[number].answers.remove(*_NUMBER.unpack(rest))

    def holder(self, name: bytes) -> tuple[int, QueueEntry] | None:
        """Return the fencing token and the entry of the holder of the lock `name`, or None."""
        return next(iter(self.locks.get(name, {}).items()), None)

    @staticmethod
    def _put_answer(lease: IndexedLease, number: int) -> None:
        lease.answers.add(number)
        lease.top = max(lease.top, number)
