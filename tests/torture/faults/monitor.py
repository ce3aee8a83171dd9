"""The states of the replicas over time, as reported by them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec

from kvstore.api.status import Status
from kvstore.client import Client
from kvstore.testing.process_cluster import ProcessCluster
from kvstore.testing.replica_status import leader_of, status_of

POLL_S = 0.1


class StateSpan(msgspec.Struct):
    """Time in which a replica had a state, in seconds of the run: leader, follower, candidate, paused, down, or silent
    without an answer."""

    state: str
    began_s: float
    ended_s: float


class ReplicaMonitor:
    """A monitor that asks every replica for its status ten times a second. `began` is a monotonic time."""

    def __init__(self, cluster: ProcessCluster, began: float, paused: Callable[[str], bool]) -> None:
        self._cluster = cluster
        self._began = began
        self._paused = paused
        self._statuses: dict[str, Status | None] = dict.fromkeys(cluster.replicas)
        self.spans: dict[str, list[StateSpan]] = {name: [] for name in cluster.replicas}

    @property
    def leader(self) -> str | None:
        """The leader according to the last statuses."""
        return leader_of(self._statuses)

    @property
    def recovered(self) -> bool:
        """Whether all replicas follow a leader according to the last statuses."""
        return self.leader is not None and all(status and status.ready for status in self._statuses.values())

    async def run(self) -> None:
        """Monitor until cancelled."""
        async with self._cluster.status_client() as client, asyncio.TaskGroup() as polls:
            for name in self._cluster.replicas:
                polls.create_task(self._poll(client, name))

    async def _poll(self, client: Client, name: str) -> None:
        while True:
            asked_s = time.monotonic() - self._began
            self._statuses[name] = status = await status_of(client, self._cluster.replicas[name])
            if not self._cluster.runs(name):
                state = "down"
            elif self._paused(name):
                state = "paused"
            else:
                state = "silent" if status is None else status.role
            extend(self.spans[name], state, asked_s, time.monotonic() - self._began)
            await asyncio.sleep(POLL_S)


def extend(spans: list[StateSpan], state: str, asked_s: float, known_s: float) -> None:
    """Add a state that was observed between two times."""
    if spans and spans[-1].state == state:
        spans[-1].ended_s = known_s
        return
    if spans:
        spans[-1].ended_s = asked_s
    spans.append(StateSpan(state, asked_s, known_s))


def leader_changes(spans: Mapping[str, list[StateSpan]]) -> int:
    """Return how often another replica became the leader."""
    leaders = sorted((span.began_s, name) for name in spans for span in spans[name] if span.state == "leader")
    return sum(before[1] != after[1] for before, after in pairwise(leaders))
