"""The stream of a backup, piece by piece: it is whole, or it is none."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.framing import frame
from kvstore.backup.stream import VERSION, End, Failed, Page, Part, Reader, Start, StreamError, pack
from storage.base import AppliedProgress, Change

START = Start(VERSION, "c", "n1", "0.1.0", 9, 4)
ROWS = [Change(revision, b"k%d" % revision, b"v", revision, 1, 0) for revision in range(1, 5)]
PARTS: list[Part] = [START, Page(0, ROWS[:2]), Page(2, ROWS[2:]), Page(4, []), End(AppliedProgress(7, 4))]
WHOLE = b"".join(map(pack, PARTS))


@given(st.lists(st.integers(0, len(WHOLE))).map(sorted))
def test_parts_arrive_as_they_were_sent_however_they_are_cut(cuts: list[int]) -> None:
    reader = Reader()
    pieces = [WHOLE[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    assert [part for piece in pieces for part in reader.feed(piece)] == PARTS
    reader.finish()


@pytest.mark.parametrize("length", [0, 3, 40, len(WHOLE) - 1])
def test_a_stream_that_ends_early_is_broken(length: int) -> None:
    reader = Reader()
    list(reader.feed(WHOLE[:length]))
    with pytest.raises(StreamError, match="broke off: take the backup again"):
        reader.finish()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([PARTS[1]], "a Page came out of turn"),
        ([START, START], "a Start came out of turn"),
        ([START, PARTS[2]], "the page behind revision 0 is missing"),
        ([START, PARTS[1], PARTS[1]], "the page behind revision 2 is missing"),
        ([*PARTS, PARTS[1]], "a Page came out of turn"),
        ([START, Failed("the disk is slow: buy another")], "^the disk is slow: buy another$"),
        (
            [Start(VERSION + 1, "c", "n1", "9.9", 9, 4)],
            r"n1 \(kvstore 9.9\) sends backups of version 2, .* run `kvstore",
        ),
    ],
)
def test_parts_out_of_turn_are_refused_with_what_to_do(parts: list[Part], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        list(Reader().feed(b"".join(map(pack, parts))))


def test_a_field_that_a_later_version_adds_is_passed_over_so_that_it_can_be_named() -> None:
    later = {**msgspec.to_builtins(START), "version": VERSION + 1, "codec": "zstd"}
    with pytest.raises(StreamError, match="run `kvstore backup` of its release"):
        list(Reader().feed(frame(msgspec.msgpack.encode(later))))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError, match=r"is that address one of a replica\?"):
        list(Reader().feed(frame(data)))


def test_a_frame_that_is_too_long_is_refused_at_its_head() -> None:
    with pytest.raises(StreamError, match="no backup"):
        list(Reader().feed(b"\xff\xff\xff\xff"))
