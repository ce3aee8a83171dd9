"""What `kvstore top` knows of a cluster, and what has changed: pure, from what each replica said and when."""

from collections import deque
from collections.abc import Mapping

import msgspec

from kvstore.api.status import Status
from kvstore.cli.load import Counters, Load, load_between
from kvstore.testing.replica_status import leader_of

EVENTS = 5
"""So many of the last changes are shown."""


class Seen(msgspec.Struct):
    """What one replica told last. `before` and `counters` are its last two counts; `error` is why it did not answer
    since the second `silent_since` of a monotonic clock, None where it did."""

    status: Status | None = None
    before: Counters | None = None
    counters: Counters | None = None
    error: str = ""
    silent_since: float | None = None

    def answered(self, status: Status, counters: Counters) -> None:
        """It did."""
        self.before = None if self.silent_since is not None else self.counters
        self.status, self.counters = status, counters
        self.error, self.silent_since = "", None

    def failed(self, error: str, asked_at: float) -> None:
        """It did not."""
        self.error = error
        if self.silent_since is None:
            self.silent_since = asked_at

    @property
    def load(self) -> Load | None:
        """Between the last two counts."""
        if self.before is None or self.counters is None:
            return None
        return load_between(self.before, self.counters)


class ReplicaView(msgspec.Struct, frozen=True):
    """One replica. While it is silent, `status` is what it told last, None if it never answered; `lag` in slots is what
    the leader knows, None without one."""

    endpoint: str
    name: str
    silent_s: float | None
    error: str
    status: Status | None
    lag: int | None
    load: Load | None
    data_bytes: int | None
    memory_bytes: int | None


class Event(msgspec.Struct, frozen=True):
    """Something that changed, `at` seconds since the version."""

    at: float
    what: str


class ClusterView(msgspec.Struct, frozen=True):
    """All replicas at one moment. `leader` is None while nobody that answers leads; `not_asked` are members that are
    not among the endpoints, once each of those has told its name."""

    cluster: str
    leader: str | None
    replicas: list[ReplicaView]
    not_asked: list[str]
    events: list[Event]


class Onlooker:
    """Compares each look at the cluster with the one before."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._leader: str | None = None
        self._ballot = ""
        self._silent: dict[str, bool] = {}

    def look(self, seen: Mapping[str, Seen], now: float, wall: float) -> ClusterView:
        """`seen` is by endpoint; `now` is of the clock of `seen`, `wall` in seconds since the version."""
        present = {where: each.status for where, each in seen.items() if each.silent_since is None}
        leader = leader_of(present)
        leading = next((status for status in present.values() if status and status.id == leader), None)
        lags = {member.name: member.lag for member in leading.members} if leading else {}
        replicas = [_replica(where, each, lags, now) for where, each in seen.items()]
        self._note(leading, replicas, wall)
        known = [each.status for each in seen.values() if each.status is not None]
        names = {each.name for each in replicas}
        members = (leading or known[0]).members if len(known) == len(seen) else []  # else some are not known by name
        return ClusterView(
            known[0].cluster if known else "",
            leader,
            replicas,
            [member.name for member in members if member.name not in names],
            list(self._events),
        )

    def _note(self, leading: Status | None, replicas: list[ReplicaView], wall: float) -> None:
        for each in replicas:
            silent = each.silent_s is not None
            if silent != self._silent.setdefault(each.endpoint, silent):
                self._silent[each.endpoint] = silent
                self._events.append(Event(wall, f"{each.name} {'does not answer' if silent else 'is back'}"))
        if leading is None:
            if self._leader is not None:
                self._events.append(Event(wall, f"nobody leads; it was {self._leader}"))
                self._leader = None
            return
        if self._ballot and leading.ballot != self._ballot:
            self._events.append(Event(wall, f"{leading.id} leads, by ballot {leading.ballot}"))
        self._leader, self._ballot = leading.id, leading.ballot


def _replica(endpoint: str, seen: Seen, lags: Mapping[str, int | None], now: float) -> ReplicaView:
    name = seen.status.id if seen.status is not None else endpoint.partition("://")[2]
    silent = seen.silent_since is not None
    counters = None if silent else seen.counters
    return ReplicaView(
        endpoint,
        name,
        now - seen.silent_since if seen.silent_since is not None else None,
        seen.error,
        seen.status,
        lags.get(name),
        None if silent else seen.load,
        counters.data_bytes if counters else None,
        counters.memory_bytes if counters else None,
    )
