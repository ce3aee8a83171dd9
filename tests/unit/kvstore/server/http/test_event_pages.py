"""Pages of events: their bounds, their ids, and that they are encoded once."""

import random
import re
from typing import Any

import pytest

from kvstore.api.commands import Record
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.server.http import event_pages
from kvstore.server.http.event_pages import BLOCK_REVISIONS, FRAME_BYTES, EventPage, EventPages, encode_page
from kvstore.state_machine.history import History
from storage.base import end_of, first_of


def record(revision: int, value: bytes = b"v") -> Record:
    return Record(value, revision, revision, 1)


class Past:
    """The part of a replica that the pages use."""

    def __init__(self, *revisions: list[bytes], value: bytes = b"v") -> None:
        """Each revision puts the keys in its list."""
        self.history = History()
        self.position = 0
        self.value = value
        for revision, keys in enumerate(revisions, 1):
            self.put(revision, *keys)

    def put(self, revision: int, *keys: bytes) -> None:
        for number, key in enumerate(keys):
            self.position = first_of(revision) + number
            self.history.add(self.position, key, record(revision, self.value), None)

    def pages(self) -> EventPages:
        replica: Any = self
        return EventPages(replica)


def revisions(page: EventPage) -> list[int]:
    return [int(each) for each in re.findall(rb'"revision":(\d+)', b"".join(page.frames))]


def ids(page: EventPage) -> list[int]:
    return [int(each) for each in re.findall(rb"^id: (\d+)$", b"".join(page.frames), re.MULTILINE)]


def walk(past: Past, span: Span, start: int) -> list[EventPage]:
    pages = []
    while True:
        pages.append(encode_page(past.history, past.position, span, start))
        if pages[-1].is_open:
            return pages
        assert pages[-1].end > start
        start = pages[-1].end


def test_events_are_encoded_as_the_standard_has_them() -> None:
    history = History()
    history.add(first_of(3), b"a\nb", record(3, b"line\nline"), None)
    history.add(first_of(4), b"a\nb", None, record(3))
    page = encode_page(history, first_of(4), EVERY_KEY, 0)
    document = b'{"key":"a\\nb","value":"line\\nline","revision":3,"create_revision":3,"version":1}'
    put = b"id: 3\nevent: put\ndata: %b\n\n" % document
    deletion = b'id: 4\nevent: delete\ndata: {"key":"a\\nb","revision":4}\n\n'
    assert page == EventPage(first_of(4), (put + deletion,), True)
    assert encode_page(history, first_of(4), EVERY_KEY, first_of(4)) == EventPage(first_of(4), (), True)


def test_a_page_ends_with_its_block_so_that_watchers_meet() -> None:
    past = Past(*[[b"k"]] * (3 * BLOCK_REVISIONS))
    ends = [[page.end for page in walk(past, EVERY_KEY, end_of(start))] for start in (0, 7, 100)]
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0]) == 4


def test_a_page_ends_once_it_is_long() -> None:
    past = Past(*[[b"k"]] * 100, value=b"x" * 1000)
    pages = walk(past, EVERY_KEY, 0)
    assert [revision for page in pages for revision in revisions(page)] == list(range(1, 101))
    assert all(len(page.frames) == 1 for page in pages)
    assert max(len(page.frames[0]) for page in pages) < FRAME_BYTES + 2000


def test_a_long_event_is_cut_into_frames() -> None:
    past = Past([b"k"], [b"k"], value=b"x" * 1_000_000)
    page = encode_page(past.history, past.position, EVERY_KEY, 0)
    assert (revisions(page), ids(page)) == ([1], [1])
    assert page.end == first_of(1)
    assert not page.is_open
    assert {len(frame) for frame in page.frames[:-1]} == {FRAME_BYTES}


def test_a_search_for_rare_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pages, "MAX_SCANNED", 10)
    past = Past(*[[b"other"]] * 35, [b"rare"])
    pages = walk(past, Span(b"rare", None), 0)
    assert [page.end for page in pages] == [first_of(10), first_of(20), first_of(30), first_of(36)]
    assert [revisions(page) for page in pages] == [[], [], [], [36]]


def test_a_revision_of_several_pages_has_its_id_after_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the last event of the revision was sent before it was known to be the last one."""
    monkeypatch.setattr(event_pages, "MAX_SCANNED", 4)
    past = Past([b"a"] * 3 + [b"z"] * 10, [b"a"], [b"z"])
    pages = walk(past, Span(b"a", b"b"), 0)
    assert [(revisions(page), ids(page)) for page in pages] == [([1, 1, 1], []), ([], []), ([], []), ([2], [1, 2])]
    past = Past([b"a"] * 9)
    assert [ids(page) for page in walk(past, EVERY_KEY, 0)] == [[], [], [1]]


@pytest.mark.parametrize("seed", range(20))
def test_the_pages_of_any_history_have_every_event_once_and_the_id_of_every_revision(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(event_pages, "MAX_SCANNED", rng.randint(1, 12))
    monkeypatch.setattr(event_pages, "FRAME_BYTES", rng.choice([100, 1000, 100_000]))
    monkeypatch.setattr(event_pages, "BLOCK_REVISIONS", rng.randint(1, 9))
    past = Past(*([rng.choice([b"a", b"b", b"c"]) for _ in range(rng.choice([1, 1, 2, 15]))] for _ in range(40)))
    span = Span(b"b", b"c")
    expected = [change.revision for change in past.history.after(0) if change.key in span]
    pages = walk(past, span, 0)
    assert [revision for page in pages for revision in revisions(page)] == expected
    assert {each for page in pages for each in ids(page)} >= set(expected)
    sent: set[int] = set()
    for line in b"".join(frame for page in pages for frame in page.frames).split(b"\n\n"):
        told = re.search(rb"^id: (\d+)", line)
        seen = re.search(rb'"revision":(\d+)', line)
        if seen:
            assert int(seen[1]) not in sent, "an event after the id of its revision"
        if told:
            sent.add(int(told[1]))


def test_a_page_is_encoded_once_for_all_watchers(encoded: list[int]) -> None:
    past = Past(*[[b"k"]] * 1000)
    pages = past.pages()
    for _ in range(60):
        position = 0
        while position < past.position:
            page = pages.after(EVERY_KEY, position)
            assert page is not None
            position = page.end
    assert len(encoded) == len(set(encoded)) == 1000 // BLOCK_REVISIONS + 1


def test_an_open_page_is_encoded_again_once_it_is_out_of_date() -> None:
    past = Past([b"a"])
    pages = past.pages()
    first = pages.after(EVERY_KEY, 0)
    past.put(2, b"b")
    assert pages.after(EVERY_KEY, 0) is first
    pages.fresh = past.position
    later = pages.after(EVERY_KEY, 0)
    assert later is not None
    assert revisions(later) == [1, 2]


def test_the_cache_is_bounded_and_a_page_that_left_it_has_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pages, "CACHE_BYTES", 100_000)
    past = Past(*[[b"k"]] * 20, value=b"x" * 40_000)
    pages = past.pages()
    first = pages.after(EVERY_KEY, 0)
    for revision in range(1, 20):
        assert pages.after(EVERY_KEY, first_of(revision)) is not None
        assert pages._cached_bytes == sum(map(event_pages._size, pages._cache.values())) <= 100_000
    again = pages.after(EVERY_KEY, 0)
    assert again == first
    assert again is not first


def test_a_watcher_within_a_revision_whose_next_change_is_compacted_has_no_page() -> None:
    """A long revision is compacted in parts."""
    past = Past([b"a", b"b", b"c"], [b"d"])
    past.history.compact(first_of(1) + 1)
    assert past.pages().after(EVERY_KEY, first_of(1)) is None
    assert past.pages().after(EVERY_KEY, first_of(1) + 1) is not None


def test_compacted_events_are_served_while_they_are_in_the_cache() -> None:
    past = Past([b"a"], [b"b"])
    pages = past.pages()
    page = pages.after(EVERY_KEY, 0)
    past.history.compact(first_of(2))
    assert pages.after(EVERY_KEY, 0) is page
    assert pages.after(EVERY_KEY, first_of(1)) is None
