"""What a front end can ask of a replica, and every way in which the answer can fail.

The front end (`kvstore.server.http`) knows this file and nothing behind it; the runtime implements `Replica`.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from kvstore.api.commands import Command, Found, Record, Result
from kvstore.api.key_range import Span
from kvstore.api.membership import MemberRole, Roster
from kvstore.server.trace import Tap
from kvstore.state_machine.history import Past
from kvstore.state_machine.lease_index import Holdings
from storage.base import StatePage


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


class Outcome(StrEnum):
    """What became of a request that was not answered as asked."""

    FAILED = "failed"
    """It left no trace and never will."""
    UNKNOWN = "unknown"
    """It may have been done, or may yet be done (rule 23)."""


class Reason(StrEnum):
    """Why a request was not answered as asked."""

    NO_LEADER = "no-leader"
    """No leader was reached in time: fewer than a majority of the replicas are up and connected."""
    TIMEOUT = "timeout"
    """The command is on its way, but was not seen applied in time."""
    OVERLOADED = "overloaded"
    """Too many requests are in flight on this replica."""
    FULL = "full"
    """The store has reached its quota: only what makes it smaller is taken."""
    STOPPING = "stopping"
    """This replica is shutting down."""
    JOINING = "joining"
    """This replica was not given the state yet."""
    WITNESS = "witness"
    """This replica votes and has no state."""
    REMOVED = "removed"
    """This replica is not a member any more."""


class Refused(Exception):
    """A request ended without its answer. For a read the outcome is always FAILED. `instead`: other replicas, where
    this one never will answer."""

    def __init__(self, reason: Reason, outcome: Outcome, instead: Sequence[str] = ()) -> None:
        super().__init__(f"{reason} ({outcome})")
        self.reason = reason
        self.outcome = outcome
        self.instead = instead


class Standing(StrEnum):
    """What a replica is to its cluster, as far as it knows."""

    VOTER = "voter"
    WITNESS = "witness"
    LEARNER = "learner"
    JOINING = "joining"
    """It catches up, and becomes what it was added as."""
    WAITING = "waiting"
    """It was started to join, and no member has told it yet who the others are."""
    REFUSED = "refused"
    """It believes that it is a member, but those that it reaches do not know it: it was removed, or never added."""
    REMOVED = "removed"


class MemberStatus(msgspec.Struct, frozen=True):
    """One member as this replica sees it.

    `role` is the present one, `becomes` that of a `joining` learner once it has caught up. `incarnation` is of its
    data, in hexadecimal, "0" while nobody has seen it. `heard_ms_ago` is None until it was heard, and 0 for the replica
    itself. Only the leader knows the others' `chosen` prefix, and by how many slots it lags.
    """

    name: str
    address: str
    connected: bool
    heard_ms_ago: float | None
    role: MemberRole = MemberRole.VOTER
    joining: bool = False
    becomes: MemberRole | None = None
    incarnation: str = "0"
    chosen: int | None = None
    lag: int | None = None
    wire_version: int | None = None
    """Of the messages that are sent to it."""


class MembersStatus(msgspec.Struct, frozen=True):
    """What `GET /members` tells: the members by the last change that this replica, `id`, has applied; whether that is
    `in_force` yet."""

    id: str
    version: int
    in_force: bool
    leader: str | None
    members: list[MemberStatus]


class Status(msgspec.Struct, frozen=True):
    """What `GET /status` tells. `ballot` and `promised` are written `round.node`; `role` is `leader`, `candidate` or
    `follower`; `leader` is None while none is known; `lease_left_ms` is None on a replica that does not lead."""

    id: str
    cluster: str
    role: str
    ready: bool
    ballot: str
    promised: str
    leader: str | None
    lease_left_ms: float | None
    chosen: int
    applied: int
    revision: int
    keys: int
    members: list[MemberStatus]
    version: str
    wire_version: int
    standing: Standing = Standing.VOTER


class Replica(Protocol):
    """One replica as its front end sees it. All of it belongs to one event loop."""

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        """Order and apply `command`; `reply` gets its result, or Refused, exactly once."""

    def read(self, query: Query, consistency: Consistency, reply: Callable[[Any], None]) -> None:
        """Look `query` up; `reply` gets what was found, ScanAnswer for a Scan, else ReadAnswer; NotThen; or Refused
        (for STALE only where there is no state at all). Exactly once, perhaps before this returns."""

    @property
    def past(self) -> Past:
        """What happened lately; another one once the state was replaced."""

    @property
    def position(self) -> int:
        """Of the last change."""

    @property
    def holdings(self) -> Holdings:
        """Leases and locks at this moment; another one once the state was replaced."""

    def on_change(self, hear: Callable[[], None]) -> None:
        """Call `hear` from now on when something has happened."""

    def tap(self, tap: Tap | None) -> None:
        """Tell `tap` from now on what happens here; None: nobody."""

    async def read_state(self, reader: str, after: int) -> StatePage:
        """The rows behind revision `after` of the stored state, a page of them. The state is not older than what was
        applied when its first page was asked for. Compaction waits for `reader` meanwhile, within bounds."""

    def end_state(self, reader: str) -> None:
        """`reader` asks for no further page."""

    def status(self) -> Status:
        """A picture of this moment."""

    def members(self) -> MembersStatus:
        """Who belongs to the cluster, and what this replica knows of them at this moment."""

    @property
    def roster(self) -> Roster:
        """The members that a change of them starts from."""

    @property
    def stopping(self) -> bool:
        """True from the moment that a shutdown began: take what is in flight, then no more."""
