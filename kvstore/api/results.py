"""The answers to reads."""

import msgspec

from kvstore.api.commands import Found, Record


class ReadAnswer(msgspec.Struct, frozen=True, gc=False):
    """`record` is None for an absent key. `applied`: the slot this replica had applied; `revision`: the store's
    revision at it; `age_ms`: time since the last word from the leader (0 on the leader itself), None when there was
    none yet. `lease`: which the key goes with now, 0 for none."""

    record: Record | None
    applied: int
    revision: int
    age_ms: float | None
    lease: int = 0


class ScanAnswer(msgspec.Struct, frozen=True):
    """`found` in order; `more`: there are others. As of `revision`; the rest as in ReadAnswer."""

    found: list[Found]
    more: bool
    applied: int
    revision: int
    age_ms: float | None


class NotThen(msgspec.Struct, frozen=True):
    """The revision that was asked for is not one of `oldest` .. `newest`, which can be told: it is compacted, or was
    not reached."""

    oldest: int
    newest: int


class LeaseStatus(msgspec.Struct, frozen=True):
    """A lease that lives. `left_ms`: until when, if it is not kept alive; None on a replica that does not lead: the
    leader alone counts. `keys` is None in a list."""

    lease: int
    ttl_ms: int
    left_ms: float | None
    key_count: int
    keys: list[bytes] | None


class LeasesAnswer(msgspec.Struct, frozen=True):
    """The leases that were asked for, none when there is no such one; `more`: there are others behind the last."""

    leases: list[LeaseStatus]
    more: bool
    revision: int


class PlaceStatus(msgspec.Struct, frozen=True):
    """Who has a lock, or waits for it."""

    lease: int
    fence: int
    value: bytes


class LockAnswer(msgspec.Struct, frozen=True):
    """The first places in the queue for a lock, and whether there are `more`; who has the first one holds it."""

    places: list[PlaceStatus]
    more: bool
    revision: int


Answer = ReadAnswer | ScanAnswer | NotThen | LeasesAnswer | LockAnswer
