"""Answers to reads."""

import msgspec

from kvstore.api.commands import KeyState, Record


class ReadAnswer(msgspec.Struct, frozen=True, gc=False):
    """The record of a key, None if the key is absent. `applied` is the last slot that the replica had applied, and
    `revision` the revision of the store at that slot. `age_ms` is the time since the leader's last message: 0 on the
    leader, None before the first message. `lease` is the lease that the key is attached to now, 0 for none."""

    record: Record | None
    applied: int
    revision: int
    age_ms: float | None
    lease: int = 0


class ScanAnswer(msgspec.Struct, frozen=True):
    """The keys of a span, in order. `more` is True if the span may have further keys. `stopped_at` is the key at which
    the search ended because it had found nothing for too long, None otherwise. The other fields are as in
    ReadAnswer."""

    found: list[KeyState]
    more: bool
    applied: int
    revision: int
    age_ms: float | None
    stopped_at: bytes | None = None


class RevisionUnavailable(msgspec.Struct, frozen=True):
    """The revision of the query is not in `oldest` .. `newest`: it is compacted, or was not reached yet."""

    oldest: int
    newest: int


class LeaseStatus(msgspec.Struct, frozen=True):
    """A lease that has not ended. `left_ms` is the time until it expires unless it is kept alive; None on a replica
    that does not lead, because only the leader measures it. `keys` is None in a list of leases."""

    lease: int
    ttl_ms: int
    left_ms: float | None
    key_count: int
    keys: list[bytes] | None


class LeasesAnswer(msgspec.Struct, frozen=True):
    """The leases of the query that have not ended. `more` is True if there are further leases."""

    leases: list[LeaseStatus]
    more: bool
    revision: int


class QueueEntryStatus(msgspec.Struct, frozen=True):
    """A lease that holds a lock, or waits for it, with the value that describes it."""

    lease: int
    fencing_token: int
    value: bytes


class LockAnswer(msgspec.Struct, frozen=True):
    """The first entries of the queue for a lock, of which the first one holds the lock. `more` is True if the queue has
    further entries."""

    queue: list[QueueEntryStatus]
    more: bool
    revision: int


QueryAnswer = ReadAnswer | ScanAnswer | RevisionUnavailable | LeasesAnswer | LockAnswer
