"""The events of watchers against the acknowledged puts."""

import pytest

from tests.torture.watching.events import EventChunk, Observations, ObservedEvent, WatchVerdict, delays_ms, judge, parse

PUT = {1: ("a", "x"), 2: ("b", "y"), 4: ("a", "z")}
"""Key and value by revision; 3 is an internal revision."""


def chunk(*revisions: int) -> EventChunk:
    return EventChunk([ObservedEvent(revision, *PUT[revision]) for revision in revisions], revisions[-1], lost=False)


def judged(
    chunks: list[EventChunk], steps: list[tuple[int, int, int]], end: int = 4, acknowledged: tuple[int, ...] = (1, 2, 4)
) -> WatchVerdict:
    seen = Observations(
        watchers=1,
        chunks=chunks,
        counts=[1] * len(chunks),
        steps=steps,
        ends=[(end, 1)],
        receptions=[],
        resumed=0,
        forgotten=0,
    )
    return judge({revision: PUT[revision] for revision in acknowledged}, seen)


def test_every_change_once_and_in_order_is_good() -> None:
    found = judged([chunk(1, 2), chunk(4)], [(0, 1, 1), (2, 4, 1)])
    assert found.good
    assert (found.events, found.changes) == (3, 3)


@pytest.mark.parametrize(
    ("chunks", "steps", "end", "counts"),
    [
        ([chunk(1), chunk(4)], [(0, 1, 1), (1, 4, 1)], 4, (1, 0, 0)),
        ([chunk(1, 4)], [(0, 1, 1)], 4, (1, 0, 0)),
        ([chunk(2), chunk(4)], [(0, 2, 1), (2, 4, 1)], 4, (1, 0, 0)),
        ([chunk(1, 2)], [(0, 1, 1)], 2, (1, 0, 0)),
        ([chunk(1, 2), chunk(2, 4)], [(0, 1, 1), (2, 2, 1)], 4, (0, 1, 0)),
        ([chunk(1, 2), chunk(1, 2), chunk(4)], [(0, 1, 1), (2, 1, 1), (2, 4, 1)], 4, (0, 0, 1)),
        ([chunk(1, 2, 2, 4)], [(0, 1, 1)], 4, (0, 1, 0)),
    ],
)
def test_lost_doubled_and_disordered_events_are_counted(
    chunks: list[EventChunk], steps: list[tuple[int, int, int]], end: int, counts: tuple[int, int, int]
) -> None:
    found = judged(chunks, steps, end)
    assert (found.lost, found.doubled, found.disordered) == counts
    assert not found.good
    assert found.examples


def test_an_event_of_one_watcher_must_reach_all() -> None:
    """A PUT of unknown outcome may be done; nobody but the watchers knows."""
    chunks = [chunk(1, 2), chunk(4), chunk(1), chunk(4)]
    steps = [(0, 1, 2), (2, 4, 1), (1, 4, 1)]
    assert judged(chunks, steps, acknowledged=(1, 4)).lost == 1


def test_an_event_of_another_value_is_wrong() -> None:
    other = EventChunk([ObservedEvent(1, "a", "never put")], 1, lost=False)
    assert judged([other, chunk(2, 4)], [(0, 1, 1), (1, 2, 1)]).wrong == 1


def test_a_chunk_of_server_sent_events_is_understood() -> None:
    body = (
        b'retry: 1000\nid: 3\n\nevent: put\ndata: {"key":"a","value":"x","revision":7}\n\n'
        b'id: 7\nevent: delete\ndata: {"key":"b","revision":7}\n\n'
    )
    found = parse(body)
    assert found == EventChunk([ObservedEvent(7, "a", "x"), ObservedEvent(7, "b", None)], 7, lost=False)
    assert not found.torn
    assert parse(body[: body.index(b"id: 7")]).torn
    assert parse(b"id: 9\n\n") == EventChunk([], 9, lost=False)
    assert parse(b'event: lost\ndata: {"oldest_revision":4,"detail":"x"}\n\n').lost


def test_delays_count_from_the_answer_of_the_put() -> None:
    seen = Observations(
        watchers=2,
        chunks=[chunk(1, 2), chunk(4)],
        counts=[2, 2],
        steps=[],
        ends=[],
        receptions=[(0, 3_000_000), (0, 4_000_000), (1, 9_000_000)],
        resumed=0,
        forgotten=0,
    )
    answered_ns = {1: 1_000_000, 2: 3_500_000, 4: 20_000_000}
    assert delays_ms(seen, answered_ns, 0, 10_000_000) == [2.0, 0.0, 3.0, 0.5]
