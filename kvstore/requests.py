"""What a front end can ask of a replica, and every way in which the answer can fail.

The front end (`kvstore.http`) knows this file and nothing behind it; the runtime implements `Replica`.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from kvstore.commands import Command, Result
from kvstore.members import MemberRole, Roster
from storage.base import StatePage


class Consistency(StrEnum):
    """How current a read must be."""

    LINEARIZABLE = "linearizable"
    """As current as the moment the request arrived; by the leader's lease or a read index."""
    QUORUM = "quorum"
    """The same, confirmed by a majority for this read, whatever the clocks do."""
    STALE = "stale"
    """What this replica has applied, at once."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A key's present value. `revision`: of the store when it was last put; `create_revision`: when it was created;
    `version`: how often it was put since then, from 1."""

    value: bytes
    revision: int
    create_revision: int
    version: int


class ReadAnswer(msgspec.Struct, frozen=True, gc=False):
    """`record` is None for an absent key. `applied`: the slot this replica had applied; `revision`: the store's
    revision at it; `age_ms`: time since the last word from the leader (0 on the leader itself), None when there was
    none yet."""

    record: Record | None
    applied: int
    revision: int
    age_ms: float | None


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

    def read(self, key: bytes, consistency: Consistency, reply: Callable[[ReadAnswer | Refused], None]) -> None:
        """Look `key` up; `reply` gets what was found, or Refused (for STALE only where there is no state at all),
        exactly once, perhaps before this returns."""

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
