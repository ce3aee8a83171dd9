"""Reads that a front end asks of a replica."""

from enum import StrEnum

import msgspec

from kvstore.api.key_range import Span


class Consistency(StrEnum):
    """Consistency of the answer to a read."""

    LINEARIZABLE = "linearizable"
    """The answer has every write that was acknowledged before the request arrived. The leader lease or a read index
    ensures that."""
    QUORUM = "quorum"
    """As LINEARIZABLE, but a majority confirms the leader for this read, so that the answer depends on no clock."""
    STALE = "stale"
    """The answer comes at once, from the state that this replica has applied."""


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """A read of `key` as of `revision`."""

    key: bytes
    revision: int


class Scan(msgspec.Struct, frozen=True, gc=False):
    """A read of the first `limit` keys of `span` as of `revision`, or of the present state if it is None. With
    `reverse`, the read is of the last keys, in descending order. The answer ends early at `max_bytes` of keys and
    values, but has at least one key. With a limit of 0 it only shows which revision can be read."""

    span: Span
    limit: int
    revision: int | None = None
    reverse: bool = False
    max_bytes: int = 1 << 20


class LeaseLookup(msgspec.Struct, frozen=True, gc=False):
    """A read of a lease and the keys that are attached to it."""

    lease: int


class LeaseScan(msgspec.Struct, frozen=True, gc=False):
    """A read of the first `limit` leases with a number above `after`."""

    after: int
    limit: int


class LockLookup(msgspec.Struct, frozen=True, gc=False):
    """A read of the holder of the lock `name` and of the queue for it."""

    name: bytes


Query = bytes | Lookup | Scan | LeaseLookup | LeaseScan | LockLookup
"""Any read. Bytes are a key, whose present record is read."""
