"""Reads that a front end asks of a replica."""

from enum import StrEnum

import msgspec

from kvstore.api.key_range import Span


class Consistency(StrEnum):
    """How current the answer to a read must be."""

    LINEARIZABLE = "linearizable"
    """As current as the moment the request arrived, by the leader lease or by a read index."""
    QUORUM = "quorum"
    """As LINEARIZABLE, but confirmed by a majority for this read, so that it depends on no clock."""
    STALE = "stale"
    """The state that this replica has applied, at once."""


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """A read of `key` as of `revision`."""

    key: bytes
    revision: int


class Scan(msgspec.Struct, frozen=True, gc=False):
    """A read of the first `limit` keys of `span` as of `revision`, or as of now for None. With `reverse` it reads
    the last keys, in descending order. The answer ends early at SCAN_BYTES, but has at least one key."""

    span: Span
    limit: int
    revision: int | None = None
    reverse: bool = False


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


SCAN_BYTES = 1 << 20
"""Bytes of keys and values in the answer to a Scan."""


Query = bytes | Lookup | Scan | LeaseLookup | LeaseScan | LockLookup
"""Any read. Bytes stand for the present record of that key."""
