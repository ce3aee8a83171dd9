"""The view of a cluster that `kvstore top` shows, computed from the answers of the replicas. Pure."""

from collections import deque
from collections.abc import Mapping

import msgspec

from kvstore.api.status import Status
from kvstore.cli.cluster_events import ChangeDetector, Observation
from kvstore.cli.replica_load import MetricsSample, ReplicaLoad, load_between
from kvstore.testing.replica_status import leader_of

MOST_EVENTS = 5


class ReplicaAnswers(msgspec.Struct):
    """The latest answers of the replica at `endpoint`.

    `before` and `metrics` are the last two samples. `unreachable_since` is the monotonic time in seconds since which
    the replica has not answered, for the reason in `error`; None if it answers.
    """

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
        """Name of the replica; its host and port until it has answered once."""
        return self.status.id if self.status is not None else self.endpoint.partition("://")[2]

    @property
    def observation(self) -> Observation:
        """State of the replica for the ChangeDetector."""
        at = self.metrics.at if self.metrics is not None else 0.0
        return Observation(self.name, None if self.unreachable else self.status, at)

    def view(self, lag: int | None, now: float) -> "ReplicaView":
        """Return the view of this replica at the monotonic time `now`. `lag` comes from the leader."""
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
    """The view of one replica.

    `status` is the last known one, None if the replica has never answered. `lag` is the number of slots by which it
    lags, as the leader reports it.
    """

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
    """A change of the cluster, observed at the Unix time `at`."""

    at: float
    message: str


class ClusterView(msgspec.Struct, frozen=True):
    """The view of all replicas at one moment.

    `leader` is None if no replica that answers is the leader. `not_asked` lists the members that are not among the
    endpoints; it is empty until each endpoint has answered once.
    """

    cluster: str
    leader: str | None
    replicas: list[ReplicaView]
    not_asked: list[str]
    events: list[ClusterEvent]


class ClusterObserver:
    """Builder of the views of a cluster, which keeps the last MOST_EVENTS changes."""

    def __init__(self) -> None:
        self._events: deque[ClusterEvent] = deque(maxlen=MOST_EVENTS)
        self._changes = ChangeDetector()

    def view(self, answers: Mapping[str, ReplicaAnswers], now: float, wall_s: float) -> ClusterView:
        """Return the view of `answers`, by endpoint, at the monotonic time `now` and the Unix time `wall_s`."""
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
