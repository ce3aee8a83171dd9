"""Turns and rests of background work, with a clock that only the work moves."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from kvstore.server.pacer import MIN_REST_S, REST, SLICE_S, BackgroundKind, Pacer

PIECE_S = SLICE_S / 3.99
"""Length of a piece, of which four fill a slice."""


class FakeLoop:
    """A clock, one timer, and the count of the foreground."""

    def __init__(self) -> None:
        self.now = 0.0
        self.foreground = 0
        self.delays: list[float] = []
        self.timer: Callable[[], None] | None = None
        self.pacer = Pacer(lambda: self.foreground, clock=lambda: self.now, call_later=self._call_later)

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        assert self.timer is None, "two turns at a time"
        self.delays.append(delay_s)
        self.timer = callback

    def turn(self) -> None:
        """Let the time of the rest pass, and run the turn."""
        timer, self.timer = self.timer, None
        assert timer is not None
        self.now += self.delays[-1]
        timer()


class Reader:
    """A reader of `pieces` pieces, each of which takes `piece_s`."""

    def __init__(self, loop: FakeLoop, kind: BackgroundKind, pieces: int, piece_s: float = PIECE_S) -> None:
        self.loop, self.kind, self.left, self.piece_s = loop, kind, pieces, piece_s
        self.worked_s = 0.0
        loop.pacer.submit(kind, self._work)

    def _work(self) -> None:
        self.loop.now += self.piece_s
        self.worked_s += self.piece_s
        self.left -= 1
        if self.left:
            self.loop.pacer.submit(self.kind, self._work)


def test_a_turn_ends_with_the_piece_that_reaches_the_slice() -> None:
    loop = FakeLoop()
    readers = [Reader(loop, BackgroundKind.REPLAY, 1000) for _ in range(60)]
    loop.turn()
    assert loop.now == pytest.approx(SLICE_S, rel=0.01)
    assert sum(reader.worked_s for reader in readers) == pytest.approx(SLICE_S, rel=0.01)
    assert max(reader.worked_s for reader in readers) == pytest.approx(PIECE_S)


def test_a_turn_is_followed_by_a_rest_while_the_foreground_works() -> None:
    """Over a long time, the background gets one part in `REST + 1`."""
    loop = FakeLoop()
    reader = Reader(loop, BackgroundKind.REPLAY, 1_000_000)
    for _ in range(100):
        loop.foreground += 1
        loop.turn()
    assert loop.delays[-1] == pytest.approx(REST * SLICE_S, rel=0.01)
    assert reader.worked_s / loop.now == pytest.approx(1 / (REST + 1), rel=0.05)


def test_a_long_piece_is_followed_by_a_long_rest() -> None:
    loop = FakeLoop()
    Reader(loop, BackgroundKind.BACKUP, 2, piece_s=0.02)
    loop.foreground += 1
    loop.turn()
    assert loop.delays[-1] == pytest.approx(REST * 0.02)


def test_an_idle_replica_serves_its_readers_without_rests() -> None:
    loop = FakeLoop()
    reader = Reader(loop, BackgroundKind.LIST, 40)
    while loop.timer is not None:
        loop.turn()
    assert set(loop.delays) == {0}
    assert loop.now == pytest.approx(reader.worked_s)


def test_work_that_comes_during_a_rest_waits_for_its_end() -> None:
    loop = FakeLoop()
    Reader(loop, BackgroundKind.EVENTS, 1, piece_s=SLICE_S)
    loop.foreground += 1
    loop.turn()
    assert loop.timer is None
    loop.now += SLICE_S
    Reader(loop, BackgroundKind.EVENTS, 1)
    assert loop.delays[-1] == pytest.approx((REST - 1) * SLICE_S)
    loop.turn()
    loop.now += 10
    Reader(loop, BackgroundKind.EVENTS, 1)
    assert loop.delays[-1] == 0


def test_a_rest_is_not_shorter_than_the_resolution_of_timers() -> None:
    loop = FakeLoop()
    Reader(loop, BackgroundKind.EVENTS, 1, piece_s=MIN_REST_S / 100)
    loop.foreground += 1
    loop.turn()
    Reader(loop, BackgroundKind.EVENTS, 1)
    assert loop.delays[-1] == MIN_REST_S


def test_each_kind_has_the_same_share_of_the_time() -> None:
    """Neither many readers nor long pieces give a kind more turns."""
    loop = FakeLoop()
    watchers = [Reader(loop, BackgroundKind.REPLAY, 1000) for _ in range(1000)]
    backup = Reader(loop, BackgroundKind.BACKUP, 1000)
    export = Reader(loop, BackgroundKind.LIST, 1000, piece_s=SLICE_S)
    for _ in range(300):
        loop.turn()
    shares = [sum(watcher.worked_s for watcher in watchers), backup.worked_s, export.worked_s]
    assert shares == pytest.approx([sum(shares) / 3] * 3, rel=0.02)


def test_a_kind_without_work_leaves_its_time_to_the_others() -> None:
    loop = FakeLoop()
    Reader(loop, BackgroundKind.EVENTS, 1)
    backup = Reader(loop, BackgroundKind.BACKUP, 1000)
    loop.turn()
    assert backup.worked_s == pytest.approx(SLICE_S - PIECE_S, rel=0.01)


def test_the_readers_of_a_kind_take_turns() -> None:
    loop = FakeLoop()
    readers = [Reader(loop, BackgroundKind.LIST, 100) for _ in range(8)]
    for _ in range(20):
        loop.turn()
    worked = [reader.worked_s for reader in readers]
    assert max(worked) - min(worked) <= PIECE_S * 1.01


def test_work_that_fails_ends_neither_the_turns_nor_the_other_work() -> None:
    loop = FakeLoop()

    def fail() -> None:
        raise ValueError("broken")

    loop.pacer.submit(BackgroundKind.EVENTS, fail)
    reader = Reader(loop, BackgroundKind.EVENTS, 1)
    with pytest.raises(ValueError, match="broken"):
        loop.turn()
    loop.turn()
    assert reader.left == 0


def test_run_returns_the_result_or_raises_the_error() -> None:
    async def scenario() -> None:
        pacer = Pacer(lambda: 0)
        assert await pacer.run(BackgroundKind.BACKUP, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await pacer.run(BackgroundKind.BACKUP, partial(divmod, 1, 0))

    asyncio.run(scenario())


@pytest.mark.parametrize(("events", "rest_s"), [(0, 0.0), (1, REST * 0.001)])
def test_work_of_another_thread_is_followed_by_a_rest_while_the_foreground_works(
    events: int, rest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, rests = FakeLoop(), list[float]()

        async def work() -> str:
            loop.now += 0.001
            loop.foreground += events
            return "page"

        async def sleep(delay_s: float) -> None:
            rests.append(delay_s)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        assert await loop.pacer.rest_after(work()) == "page"
        assert sum(rests) == pytest.approx(rest_s)

    asyncio.run(scenario())


def test_work_whose_reader_has_left_is_not_done() -> None:
    async def scenario() -> None:
        pacer, done = Pacer(lambda: 0), list[int]()
        waiting = asyncio.create_task(pacer.run(BackgroundKind.BACKUP, lambda: done.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await pacer.run(BackgroundKind.BACKUP, lambda: done.append(2))
        assert done == [2]

    asyncio.run(scenario())
