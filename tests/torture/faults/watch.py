"""Who led when, as the replicas themselves said, and what became of each."""

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


class Span(msgspec.Struct):
    """A replica was in `state` (leader, follower, candidate, silent, paused or down) between two moments of the run."""

    state: str
    began_s: float
    ended_s: float


class Watch:
    """Asks every replica how it is, ten times a second."""

    def __init__(self, cluster: ProcessCluster, began: float, paused: Callable[[str], bool]) -> None:
        self._cluster = cluster
        self._began = began
        self._paused = paused
        self._statuses: dict[str, Status | None] = dict.fromkeys(cluster.replicas)
        self.lanes: dict[str, list[Span]] = {name: [] for name in cluster.replicas}

    @property
    def leader(self) -> str | None:
        """Who leads, as far as is known."""
        return leader_of(self._statuses)

    @property
    def recovered(self) -> bool:
        """Whether all replicas follow a leader, as far as is known."""
        return self.leader is not None and all(status and status.ready for status in self._statuses.values())

    async def run(self) -> None:
        """Watch until cancelled."""
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
            note(self.lanes[name], state, asked_s, time.monotonic() - self._began)
            await asyncio.sleep(POLL_S)


def note(lane: list[Span], state: str, asked_s: float, known_s: float) -> None:
    """Add what was found between two moments."""
    if lane and lane[-1].state == state:
        lane[-1].ended_s = known_s
        return
    if lane:
        lane[-1].ended_s = asked_s
    lane.append(Span(state, asked_s, known_s))


def changes_of_leader(lanes: Mapping[str, list[Span]]) -> int:
    """How often another replica led than before."""
    reigns = sorted((span.began_s, name) for name, lane in lanes.items() for span in lane if span.state == "leader")
    return sum(before[1] != after[1] for before, after in pairwise(reigns))
