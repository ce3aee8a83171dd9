"""What is worth a line while a cluster runs: pure, from what was seen of each replica and when."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kvstore.api.status import Status
from kvstore.testing.replica_status import describe_exit, leader_of

SILENT_S = 1.5
"""A replica whose process is there and that has not answered for this long is told of."""


class Sighting(NamedTuple):
    """The last answer of a replica, None when it gave none, at `at` seconds of a monotonic clock."""

    status: Status | None
    at: float


class Watch:
    """Compares each observation with the one before. When it begins, all replicas are up and whoever leads is
    known."""

    def __init__(self, names: list[str], start_command: Callable[[str], str]) -> None:
        self._start_command = start_command
        self._up = dict.fromkeys(names, True)
        self._exit_told: dict[str, int] = {}
        self._answered_at: dict[str, float] = {}
        self._ballot = ""
        self._led_at: float | None = None
        self._majority = True

    def observe(self, now: float, seen: Mapping[str, Sighting], exits: Mapping[str, int | None]) -> Iterator[str]:
        """A line for each change. `exits`: how a process ended, None for one that runs or that others started."""
        for name, sighting in seen.items():
            line = self._presence(now, name, sighting, exits[name])
            if line:
                yield line
        yield from self._quorum()
        line = self._leadership({name: sighting for name, sighting in seen.items() if sighting.status})
        if line:
            yield line

    def _presence(self, now: float, name: str, sighting: Sighting, code: int | None) -> str | None:
        if sighting.status is not None:
            self._answered_at[name] = sighting.at
            was_up, self._up[name] = self._up[name], True
            return None if was_up else f"{name} is back"
        if not self._up[name]:
            return None
        told = self._exit_told.get(name) == code
        if code is not None and not told:
            self._up[name] = False
            self._exit_told[name] = code
            return f"{name} died ({describe_exit(code)}); start it again with: {self._start_command(name)}"
        if code is not None:  # the process that died is known: this one was started by hand
            self._up[name] = False
            return f"{name} is gone; start it again with: {self._start_command(name)}"
        if now - self._answered_at.setdefault(name, now) < SILENT_S:
            return None
        self._up[name] = False
        return f"{name} does not answer, though its process is there: stopped or stuck"

    def _quorum(self) -> Iterator[str]:
        up, needed = sum(self._up.values()), len(self._up) // 2 + 1
        had, self._majority = self._majority, up >= needed
        if had and not self._majority:
            yield (
                f"no majority: {up} of {len(self._up)} replicas up, {needed} needed; until then writes and linearizable"
                " reads get 503, stale reads go on"
            )

    def _leadership(self, seen: Mapping[str, Sighting]) -> str | None:
        leader = leader_of({name: sighting.status for name, sighting in seen.items()})
        if leader is None:
            return None
        status, at = seen[leader]
        assert status is not None  # noqa: S101 - tells the type checker what `leader_of` looked at
        led_at, self._led_at = self._led_at, at
        if status.ballot == self._ballot:
            return None
        self._ballot = status.ballot
        return None if led_at is None else f"{leader} leads, {max(at - led_at, 0):.1f} s without a leader"
