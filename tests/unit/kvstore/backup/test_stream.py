"""The stream of a backup: a whole one is decoded however it is cut, any other one is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.framing import frame
from kvstore.backup.stream import (
    VERSION,
    StreamDecoder,
    StreamEnd,
    StreamError,
    StreamFailure,
    StreamMessage,
    StreamPage,
    StreamStart,
    pack,
)
from storage.base import AppliedProgress, Change

START = StreamStart(VERSION, "c", "n1", "0.1.0", 9, 4)
ROWS = [Change(revision, b"k%d" % revision, b"v", revision, 1, 0) for revision in range(1, 5)]
PARTS: list[StreamMessage] = [
    START,
    StreamPage(0, ROWS[:2]),
    StreamPage(2, ROWS[2:]),
    StreamPage(4, []),
    StreamEnd(AppliedProgress(7, 4)),
]
WHOLE = b"".join(map(pack, PARTS))


@given(st.lists(st.integers(0, len(WHOLE))).map(sorted))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(cuts: list[int]) -> None:
    reader = StreamDecoder()
    pieces = [WHOLE[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    assert [part for piece in pieces for part in reader.feed(piece)] == PARTS
    reader.finish()


@pytest.mark.parametrize("length", [0, 3, 40, len(WHOLE) - 1])
def test_a_stream_that_ends_early_is_broken(length: int) -> None:
    reader = StreamDecoder()
    list(reader.feed(WHOLE[:length]))
    with pytest.raises(StreamError, match="the backup stream ended early: take the backup again"):
        reader.finish()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([PARTS[1]], "unexpected StreamPage: take the backup again"),
        ([START, START], "unexpected StreamStart: take the backup again"),
        ([START, PARTS[2]], "the page after position 0 is missing"),
        ([START, PARTS[1], PARTS[1]], "the page after position 2 is missing"),
        ([*PARTS, PARTS[1]], "unexpected StreamPage: take the backup again"),
        ([START, StreamFailure("the disk is slow: buy another")], "^the disk is slow: buy another$"),
        (
            [StreamStart(VERSION + 1, "c", "n1", "9.9", 9, 4)],
            r"n1 \(kvstore 9.9\) sends backups of version 2, .* run `kvstore",
        ),
    ],
)
def test_unexpected_messages_are_refused(parts: list[StreamMessage], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        list(StreamDecoder().feed(b"".join(map(pack, parts))))


def test_a_later_version_with_more_fields_is_refused_by_its_number() -> None:
    later = {**msgspec.to_builtins(START), "version": VERSION + 1, "codec": "zstd"}
    with pytest.raises(StreamError, match="run `kvstore backup` of its release"):
        list(StreamDecoder().feed(frame(msgspec.msgpack.encode(later))))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError, match=r"the answer is not a backup .*: check that the endpoint is a replica"):
        list(StreamDecoder().feed(frame(data)))


def test_a_frame_that_is_too_long_is_refused_at_its_head() -> None:
    with pytest.raises(StreamError, match="the answer is not a backup"):
        list(StreamDecoder().feed(b"\xff\xff\xff\xff"))
