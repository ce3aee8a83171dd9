"""The view of a cluster that `kvstore top` shows, from the answers of its replicas. Pure."""

from collections import deque
from collections.abc import Mapping

import msgspec

from kvstore.api.status import Status
from kvstore.cli.cluster_events import ChangeDetector, Observation
from kvstore.cli.replica_load import MetricsSample, ReplicaLoad, load_between
from kvstore.testing.replica_status import leader_of

MOST_EVENTS = 5


class ReplicaAnswers(msgspec.Struct):
    """Last answers of the replica at `endpoint`. `before` and `metrics` are its last two samples. `unreachable_since`
    is in seconds of a monotonic clock, None if the replica answers; `error` is the reason."""

    endpoint: str
    status: Status | None = None
    before: MetricsSample | None = None
    metrics: MetricsSample | None = None
    error: str = ""
    unreachable_since: float | None = None

    def answered(self, status: Status, metrics: MetricsSample) -> None:
        """Record an answer."""
        self.before = None if self.unreachable else self.metrics
        self.status, self.metrics = status, metrics
        self.error, self.unreachable_since = "", None

    def failed(self, error: str, asked_at: float) -> None:
        """Record the failure of a request that was sent at `asked_at`."""
        self.error = error
        if self.unreachable_since is None:
            self.unreachable_since = asked_at

    @property
    def unreachable(self) -> bool:
        """True if the last request failed."""
        return self.unreachable_since is not None

    @property
    def name(self) -> str:
        """Name of the replica, its host and port until it has answered once."""
        return self.status.id if self.status is not None else self.endpoint.partition("://")[2]

    @property
    def observation(self) -> Observation:
        """State of the replica, for the detection of changes."""
        at = self.metrics.at if self.metrics is not None else 0.0
        return Observation(self.name, None if self.unreachable else self.status, at)

    def view(self, lag: int | None, now: float) -> "ReplicaView":
        """Return the state to be shown."""
        metrics = None if self.unreachable else self.metrics
        return ReplicaView(
            self.endpoint,
            self.name,
            now - self.unreachable_since if self.unreachable_since is not None else None,
            self.error,
            self.status,
            lag,
            load_between(self.before, metrics) if self.before is not None and metrics is not None else None,
            metrics.data_bytes if metrics is not None else None,
            metrics.memory_bytes if metrics is not None else None,
        )


class ReplicaView(msgspec.Struct, frozen=True):
    """One replica. While it is unreachable, `status` is the last one, None if it never answered. `lag` is in slots, as
    the leader reports it."""

    endpoint: str
    name: str
    unreachable_s: float | None
    error: str
    status: Status | None
    lag: int | None
    load: ReplicaLoad | None
    data_bytes: int | None
    memory_bytes: int | None


class ClusterEvent(msgspec.Struct, frozen=True):
    """A change of the cluster, seen `at` seconds since 1970."""

    at: float
    message: str


class ClusterView(msgspec.Struct, frozen=True):
    """All replicas at one moment. `leader` is None if no replica that answers leads. `not_asked` are the members that
    are not among the endpoints, empty until each endpoint has answered once."""

    cluster: str
    leader: str | None
    replicas: list[ReplicaView]
    not_asked: list[str]
    events: list[ClusterEvent]


class ClusterObserver:
    """Makes views, and keeps the last `MOST_EVENTS` changes between them."""

    def __init__(self) -> None:
        self._events: deque[ClusterEvent] = deque(maxlen=MOST_EVENTS)
        self._changes = ChangeDetector()

    def view(self, answers: Mapping[str, ReplicaAnswers], now: float, wall_s: float) -> ClusterView:
        """Return the view of `answers`, which are by endpoint. `now` is of the clock of `answers`, `wall_s` in seconds
        since 1970."""
        observed = {endpoint: each.observation for endpoint, each in answers.items()}
        self._events += [ClusterEvent(wall_s, line) for line in self._changes.observe(now, observed)]
        leader = leader_of({endpoint: each.status for endpoint, each in observed.items()})
        known = [each.status for each in answers.values() if each.status is not None]
        leading = next((each.status for each in observed.values() if each.status and each.status.id == leader), None)
        lags = {member.name: member.lag for member in leading.members} if leading else {}
        names = {each.name for each in answers.values()}
        members = (leading or known[0]).members if len(known) == len(answers) else []
        return ClusterView(
            known[0].cluster if known else "",
            leader,
            [each.view(lags.get(each.name), now) for each in answers.values()],
            [member.name for member in members if member.name not in names],
            list(self._events),
        )
