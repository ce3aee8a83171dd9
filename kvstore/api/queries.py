"""The reads that a front end can ask of a replica."""

from enum import StrEnum

import msgspec

from kvstore.api.key_range import Span


class Consistency(StrEnum):
    """How current a read must be."""

    LINEARIZABLE = "linearizable"
    """As current as the moment the request arrived; by the leader's lease or a read index."""
    QUORUM = "quorum"
    """The same, confirmed by a majority for this read, whatever the clocks do."""
    STALE = "stale"
    """What this replica has applied, at once."""


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """What `key` held once `revision` was done."""

    key: bytes
    revision: int


class Scan(msgspec.Struct, frozen=True, gc=False):
    """The first `limit` keys of `span` with what they held once `revision` was done, None for the present one; the last
    ones, from there backwards, with `reverse`. Fewer, where that is more than `SCAN_BYTES`; at least one."""

    span: Span
    limit: int
    revision: int | None = None
    reverse: bool = False


class LeaseLookup(msgspec.Struct, frozen=True, gc=False):
    """A lease, with the keys that go with it."""

    lease: int


class LeaseScan(msgspec.Struct, frozen=True, gc=False):
    """The first `limit` leases behind `after`."""

    after: int
    limit: int


class LockLookup(msgspec.Struct, frozen=True, gc=False):
    """Who has the lock `name`, and who waits for it."""

    name: bytes


SCAN_BYTES = 1 << 20


Query = bytes | Lookup | Scan | LeaseLookup | LeaseScan | LockLookup
"""What a read asks for. Bytes: a key, as it is now."""
