"""Changes between observations of a cluster: replicas end, stop answering and return, and the majority or the leader is
lost. Pure: `kvstore cluster` and `kvstore top` observe the replicas and print the changes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from kvstore.api.membership import MemberRole
from kvstore.api.status import Status
from kvstore.testing.replica_status import describe_exit, leader_of

NO_EXITS: Mapping[str, int | None] = {}


class Observation(NamedTuple):
    """State of one replica at the monotonic time `at`, in seconds. `status` is None if the replica did not answer."""

    name: str
    status: Status | None
    at: float


class ChangeDetector:
    """Detector of the changes between consecutive observations of the same replicas.

    `up` holds the keys of the replicas that have already answered. An unreachable replica, or a missing leader, is
    reported after `grace_s`. `start_command` returns the command that starts the replica with the given key.
    """

    def __init__(
        self, up: Collection[str] = (), *, grace_s: float = 0.0, start_command: Callable[[str], str] = str
    ) -> None:
        self._grace_s = grace_s
        self._start_command = start_command
        self._up = dict.fromkeys(up, True)
        self._reported_exits: dict[str, int] = {}
        self._answered_at: dict[str, float] = {}
        self._voters: set[str] = set()
        self._majority = True
        self._leader: str | None = None
        self._ballot = ""
        self._led_at: float | None = None

    def observe(
        self, now: float, replicas: Mapping[str, Observation], exits: Mapping[str, int | None] = NO_EXITS
    ) -> Iterator[str]:
        """Yield a line for each change since the last observation.

        `exits` maps keys to the exit codes of their processes, None for a running process. A process without an entry
        is unknown.
        """
        for key, replica in replicas.items():
            yield from self._presence(now, key, replica, exits)
        yield from self._quorum(replicas)
        yield from self._leadership(now, replicas)

    def _presence(self, now: float, key: str, replica: Observation, exits: Mapping[str, int | None]) -> Iterator[str]:
        was_up = self._up.setdefault(key, replica.status is not None)
        if replica.status is not None:
            self._answered_at[key] = replica.at
            self._up[key] = True
            if not was_up:
                yield f"{replica.name} is back"
            return
        if not was_up:
            return
        code = exits.get(key)
        if code is None:
            if now - self._answered_at.setdefault(key, now) >= self._grace_s:
                self._up[key] = False
                yield f"{replica.name} does not answer" + (
                    ", though its process runs: it is paused or stuck" if key in exits else ""
                )
            return
        self._up[key] = False
        # A code that was reported before belongs to an earlier process: the last one was started by hand, and its code
        # is unknown.
        ended = "ended" if self._reported_exits.get(key) == code else f"died ({describe_exit(code)})"
        self._reported_exits[key] = code
        yield f"{replica.name} {ended}; start it again with: {self._start_command(key)}"

    def _quorum(self, replicas: Mapping[str, Observation]) -> Iterator[str]:
        """Yield a line if the majority is lost. Yields none unless all voters are among the observed replicas."""
        status = next((each.status for each in replicas.values() if each.status is not None), None)
        if status is not None:
            self._voters = {each.name for each in status.members if each.role is not MemberRole.LEARNER}
        names = {each.name for each in replicas.values()}
        voters = self._voters or names
        if not voters <= names:
            return
        up = len(voters & {each.name for key, each in replicas.items() if self._up[key]})
        needed = len(voters) // 2 + 1
        had, self._majority = self._majority, up >= needed
        if had and not self._majority:
            yield (
                f"no majority: {up} of {len(voters)} replicas up, {needed} needed: writes and linearizable reads fail "
                "with 503, stale reads still work"
            )

    def _leadership(self, now: float, replicas: Mapping[str, Observation]) -> Iterator[str]:
        name = leader_of({key: each.status for key, each in replicas.items()})
        leading = next((each for each in replicas.values() if each.status is not None and each.status.id == name), None)
        if leading is None or leading.status is None:
            if self._leader is not None and self._led_at is not None and now - self._led_at >= self._grace_s:
                yield f"no leader; the last one was {self._leader}"
                self._leader = None
            return
        led_at, self._led_at = self._led_at, leading.at
        self._leader = name
        if leading.status.ballot != self._ballot:
            self._ballot = leading.status.ballot
            if led_at is not None:
                yield f"{name} leads, {max(leading.at - led_at, 0):.1f} s without a leader"
