"""State of a replica and of its cluster, as the documents of `GET /status` and `GET /members`."""

from enum import StrEnum

import msgspec

from kvstore.api.membership import MemberRole


class Standing(StrEnum):
    """The standing of a replica in its cluster, as far as the replica knows."""

    VOTER = "voter"
    WITNESS = "witness"
    LEARNER = "learner"
    JOINING = "joining"
    """The replica is catching up, and then takes the role with which it was added."""
    WAITING = "waiting"
    """The replica was started to join, and has not learned the membership from any member yet."""
    FOUNDING = "founding"
    """The replica has no data of a cluster, and waits for the other founding members to found a cluster with them."""
    RESTORE_MISMATCH = "restore-mismatch"
    """The replica and other founding members begin with different restored states, or only some of them with one: they
    found no cluster together."""
    DATA_LOST = "data-lost"
    """The replica has no data of a cluster, and members that have know it with other data: it has lost its disk."""
    REFUSED = "refused"
    """The members that the replica reaches do not know it: it was removed, or never added."""
    REMOVED = "removed"


class MemberStatus(msgspec.Struct, frozen=True):
    """One member as this replica sees it.

    `role` is the present role, and `becomes` the role of a `joining` learner once it has caught up. `incarnation` is
    that of its data, in hexadecimal, "0" before the member is enrolled. `heard_ms_ago` is the time since its last
    message: None before the first message, 0 for the replica itself. Only the leader knows `chosen` and `lag`, both in
    slots.
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
    """Version of the messages that are sent to the member."""


class MembersStatus(msgspec.Struct, frozen=True):
    """The document of `GET /members`: the membership by the last change that the replica `id` has applied, and
    whether it is `in_force`."""

    id: str
    version: int
    in_force: bool
    leader: str | None
    members: list[MemberStatus]


class Status(msgspec.Struct, frozen=True):
    """The document of `GET /status`. `ballot` and `promised` are written `round.node`. `role` is `leader`,
    `candidate` or `follower`. `leader` is None while none is known. `lease_left_ms` is None on a replica that does
    not lead. `waits_for` names the founding members that have not answered a replica whose standing is `founding`, the
    members that begin with another state if its standing is `restore-mismatch`, and the members that have data if its
    standing is `data-lost`. `restored` is the mark of the restored state with which the cluster began, empty for none:
    the number given with `--above`, a colon and a hash. A member that joins or is replaced shows the mark of the
    cluster as soon as it has the state of the cluster. Before that, and before the cluster is founded, a replica shows
    the mark of its own restored state."""

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
    waits_for: list[str] = []
    restored: str = ""
