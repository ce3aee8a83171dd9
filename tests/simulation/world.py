"""Simulated time: an event is a moment and what happens then."""

import heapq
from collections.abc import Callable
from random import Random

from paxos.types import MS, Time

MOST_EVENTS = 1_000_000
"""A run that schedules more in one stretch does something again and again without end."""


class World:
    """The event queue. Ties are broken by the order of scheduling."""

    def __init__(self) -> None:
        self.now: Time = 0
        self._events: list[tuple[Time, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._end: Time | None = None
        """End of the innermost run that is under way."""

    def at(self, when: Time, event: Callable[[], None]) -> None:
        """Have `event` happen at `when`, or now if that is past."""
        self._scheduled += 1
        heapq.heappush(self._events, (max(when, self.now), self._scheduled, event))

    def after_ms(self, delay_ms: float, event: Callable[[], None]) -> None:
        """Have `event` happen in a while."""
        self.at(self.now + int(delay_ms * MS), event)

    def between_ms(self, rng: Random, bounds: tuple[float, float], event: Callable[[], None]) -> None:
        """Have `event` happen after a random time within bounds."""
        shortest, longest = bounds
        self.at(self.now + int((shortest + (longest - shortest) * rng.random()) * MS), event)

    def run(self, until: Time) -> None:
        """Let everything happen up to `until`. An event may call this, too, to let time pass within itself, but not
        beyond the end of the run that it is part of."""
        most = self._scheduled + MOST_EVENTS
        events, outer_end = self._events, self._end
        self._end = until = until if outer_end is None else min(until, outer_end)
        while events and events[0][0] <= until:
            assert self._scheduled < most, "a million events and no end: something is done again and again"
            self.now, _, event = heapq.heappop(events)
            event()
        self.now, self._end = until, outer_end
