"""Paces the background work of the event loop, so that writes and heartbeats wait for at most one slice of it.

    submit(kind, work) -> the queue of its kind -> a turn: SLICE_S of work -> a rest of REST times its length -> ...

Background work is work that may be delayed: events for watchers, lists and backups. The kinds take turns, so that a
thousand watchers together have the same share of the time as one backup. Within a kind the order is first come, first
served: a reader that submits one small piece of work after the other shares with the others.

The rests leave the time to the foreground. There are none while nothing happens there: an idle replica sends a backup
at full speed, and the first write after that waits for one slice.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial
from typing import TypeVar

SLICE_S = 0.0005
"""Time after which a turn starts no more work. The last piece of work may end later."""
REST = 4
"""Length of a rest in multiples of the length of the turn before it."""
MIN_REST_S = 0.001
"""Shortest rest: the resolution of the timers of libuv."""
MAX_REST_S = 0.005
"""Longest rest after work of another thread, whose length includes the time in the queue of that thread."""

Work = Callable[[], object]
T = TypeVar("T")


class BackgroundKind(IntEnum):
    """The kinds of background work."""

    EVENTS = 0
    """New events for watchers that have all events before them."""
    REPLAY = 1
    """Events for watchers that lack earlier ones."""
    LIST = 2
    """Records of lists, page by page."""
    BACKUP = 3
    """Pages of backups."""


class Pacer:
    """Scheduler of the background work of one event loop."""

    def __init__(
        self,
        foreground: Callable[[], int],
        *,
        clock: Callable[[], float] = time.perf_counter,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """Begin without work. `foreground` returns a count of the work in the foreground so far, and `clock` seconds.
        `call_later` is that of the running event loop by default."""
        self._foreground = foreground
        self._clock = clock
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._queues: dict[BackgroundKind, deque[Work]] = {kind: deque() for kind in BackgroundKind}
        self._order = list(BackgroundKind)
        """All kinds. The kind that had a turn last is the last one."""
        self._seen = foreground()
        self._is_scheduled = False
        self._rests_until = 0.0

    def submit(self, kind: BackgroundKind, work: Work) -> None:
        """Call `work` in a later turn. It should take less than a slice, and submit itself again to go on."""
        self._queues[kind].append(work)
        self._schedule()

    async def run(self, kind: BackgroundKind, work: Callable[[], T]) -> T:
        """Call `work` in a later turn and return its result. Raises what `work` raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(kind, partial(_settle, done, work))
        return await done

    async def rest_after(self, work: Awaitable[T]) -> T:
        """Await `work`, which another thread does, and rest as after a turn of that length, MAX_REST_S at most."""
        begun, before = self._clock(), self._foreground()
        result = await work
        if self._foreground() != before:
            await asyncio.sleep(min(REST * (self._clock() - begun), MAX_REST_S))
        return result

    def _schedule(self) -> None:
        if self._is_scheduled:
            return
        self._is_scheduled = True
        rest_s = self._rests_until - self._clock()
        self._call_later(max(rest_s, MIN_REST_S) if rest_s > 0 else 0, self._turn)

    def _turn(self) -> None:
        begun = self._clock()
        try:
            self._work_until(begun + SLICE_S)
        finally:
            ended, foreground = self._clock(), self._foreground()
            if foreground != self._seen:
                self._rests_until = ended + REST * (ended - begun)
                self._seen = foreground
            self._is_scheduled = False
            if any(self._queues.values()):
                self._schedule()

    def _work_until(self, end: float) -> None:
        for kind in list(self._order):
            queue = self._queues[kind]
            if queue:
                self._order.remove(kind)
                self._order.append(kind)
            while queue:
                queue.popleft()()
                if self._clock() >= end:
                    return


def _settle(done: "asyncio.Future[T]", work: Callable[[], T]) -> None:
    if done.done():
        return  # nobody waits any more
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001  raised where the result is awaited
        done.set_exception(error)
