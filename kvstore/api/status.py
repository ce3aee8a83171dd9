"""The state of a replica and of its cluster as the documents of `GET /status` and `GET /members`."""

from enum import StrEnum

import msgspec

from kvstore.api.membership import MemberRole


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
