from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paxos import wire
from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Chosen,
    DigestMismatch,
    DigestReply,
    DigestRequest,
    Fetch,
    FetchSnapshot,
    ForgottenVotes,
    FoundingState,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Reject,
    ReleaseLease,
    SnapshotPage,
)
from paxos.types import Ballot, PValue

counts = st.integers(0, 2**62)
names = st.text(max_size=32)
ballots = st.builds(Ballot, counts, names)
values = st.binary(max_size=50)
pvalues = st.lists(st.builds(PValue, counts, ballots, values), max_size=4).map(tuple)

MESSAGES: dict[type[AnyMessage], st.SearchStrategy[AnyMessage]] = {
    PreVote: st.builds(PreVote, counts, counts),
    PreVoteReply: st.builds(PreVoteReply, counts, st.booleans(), ballots, counts),
    Prepare: st.builds(Prepare, ballots, counts),
    Promise: st.builds(Promise, ballots, counts, pvalues, counts),
    Accept: st.builds(Accept, ballots, counts, values, counts),
    Accepted: st.builds(Accepted, ballots, counts),
    Chosen: st.builds(Chosen, ballots, counts),
    Reject: st.builds(Reject, ballots, ballots, counts),
    Heartbeat: st.builds(Heartbeat, ballots, counts, counts),
    HeartbeatAck: st.builds(HeartbeatAck, ballots, counts, st.booleans(), counts, counts),
    FoundingState: st.builds(
        FoundingState,
        counts,
        st.lists(st.tuples(names, counts), max_size=3).map(tuple),
        st.lists(names, max_size=3).map(tuple),
        st.booleans(),
        st.text(max_size=40),
    ),
    ForgottenVotes: st.builds(ForgottenVotes, ballots, counts),
    ReleaseLease: st.builds(ReleaseLease, ballots, names),
    Fetch: st.builds(Fetch, counts),
    Learn: st.builds(Learn, pvalues, counts, counts),
    FetchSnapshot: st.builds(FetchSnapshot, counts),
    DigestRequest: st.builds(DigestRequest, counts, values),
    DigestReply: st.builds(DigestReply, counts, values),
    DigestMismatch: st.builds(DigestMismatch, counts, values),
    SnapshotPage: st.builds(SnapshotPage, counts, values, counts, values, counts),
    Propose: st.builds(Propose, st.lists(values, max_size=4).map(tuple)),
    ReadIndex: st.builds(ReadIndex, counts, st.booleans()),
    ReadIndexReply: st.builds(ReadIndexReply, counts, counts),
}
messages = st.one_of(*MESSAGES.values())
VERSION = bytes([wire.VERSION])


def test_every_message_is_tried() -> None:
    assert set(MESSAGES) == set(get_args(AnyMessage))


@given(messages)
def test_every_message_arrives_as_it_was_sent(message: AnyMessage) -> None:
    assert wire.decode(wire.encode(message)) == message
    assert wire.decode(memoryview(wire.encode(message))) == message


@given(st.binary(max_size=100), st.booleans())
@example(b"\x92\xa5Fetch\x01", True)
@example(b"\x92\xa5Fetch\xff", True)
@example(b"\x92\xa5Fetch" + b"\x91" * 5000, True)
@example(b"\x91\xa5Fetch", True)
@example(b"\x93\xa5Fetch\x01\x02", True)
@example(b"\x93\xa7Prepare\x92\x01\xa2\xff\xfe\x01", True)
@example(b"", False)
def test_random_bytes_are_a_message_or_a_wire_error(data: bytes, with_version: bool) -> None:
    decode_or_refuse(VERSION + data if with_version else data)


@given(messages, st.data())
def test_a_message_with_one_byte_changed_or_cut_off_is_a_message_or_a_wire_error(
    message: AnyMessage, data: st.DataObject
) -> None:
    encoded = bytearray(wire.encode(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(encoded))
    decode_or_refuse(bytes(encoded[:place]))


def decode_or_refuse(data: bytes) -> None:
    try:
        message = wire.decode(data)
    except wire.WireError:
        return
    assert isinstance(message, get_args(AnyMessage))
    assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Accepted(Ballot(-1, "n1"), 1),
        Accepted(Ballot(1, "n" * 33), 1),
        Accepted(Ballot(1, "n1"), -1),
        Accepted(Ballot(1, "n1"), 2**62 + 1),
        PreVote(-1, 1),
    ],
)
def test_what_is_out_of_range_is_refused(message: AnyMessage) -> None:
    with pytest.raises(wire.WireError, match="malformed message"):
        wire.decode(wire.encode(message))


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    encoded = wire.encode(ReleaseLease(Ballot(1, "n1"), "xx")).replace(b"xx", b"\xff\xfe")
    with pytest.raises(wire.WireError, match="malformed"):
        wire.decode(encoded)


def test_another_version_is_refused_and_named() -> None:
    with pytest.raises(wire.WireError, match=f"version 9: this replica supports version {wire.VERSION}"):
        wire.decode(b"\x09" + wire.encode(Fetch(1))[1:])


@contextmanager
def next_version() -> Iterator[int]:
    """A version in which a Heartbeat has one field more, and nothing else is new."""
    version = wire.VERSION + 1
    known: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)

    def encode(message: AnyMessage) -> bytes:
        fields: list[object] = msgspec.to_builtins(message, builtin_types=(bytes,))
        return msgspec.msgpack.encode([*fields, "new"] if isinstance(message, Heartbeat) else fields)

    def decode(data: memoryview) -> AnyMessage:
        fields = msgspec.msgpack.decode(data)
        if fields[0] == "Heartbeat" and fields.pop() != "new":
            raise msgspec.ValidationError("no new field")
        return known.decode(msgspec.msgpack.encode(fields))

    wire.register(version, wire.Codec(encode, decode))
    try:
        yield version
    finally:
        del wire._codecs[version]


@given(messages)
def test_every_message_arrives_in_each_version_that_is_spoken(message: AnyMessage) -> None:
    with next_version() as newest:
        assert wire.supported() == (wire.VERSION, newest)
        for version in range(wire.VERSION, newest + 1):
            data = wire.encode(message, version)
            assert data[0] == version
            assert wire.decode(data) == message


def test_versions_differ_in_what_they_say_they_differ_in() -> None:
    beat = Heartbeat(Ballot(1, "n1"), 1, 1)
    with next_version() as newest:
        old, new = wire.encode(beat)[1:], wire.encode(beat, newest)[1:]
    assert msgspec.msgpack.decode(new) == [*msgspec.msgpack.decode(old), "new"]
    with pytest.raises(wire.WireError, match="malformed"):
        wire.decode(VERSION + new)


def test_a_message_that_a_version_does_not_have_is_no_bytes() -> None:
    with next_version() as newest:
        wire._codecs[newest] = wire._codecs[newest]._replace(encode=lambda _: b"")
        assert wire.encode(Fetch(1), newest) == b""


def test_versions_have_no_gap() -> None:
    codec = wire.Codec(lambda _: b"", lambda _: Fetch(1))
    for version in (wire.VERSION, wire.VERSION + 2, wire.VERSION - 2):
        with pytest.raises(InvariantError, match="would leave a gap"):
            wire.register(version, codec)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [((2, 2), (2, 2), 2), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 1), (2, 2), None), ((3, 4), (1, 2), None)],
)
def test_the_common_version_is_the_highest_of_both(
    one: tuple[int, int], other: tuple[int, int], common: int | None
) -> None:
    assert wire.Versions(*one).common(wire.Versions(*other)) == common


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(wire.WireError, match="version none"):
        wire.decode(b"")


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(wire.WireError, match=f"limit of {wire.MAX_MESSAGE_BYTES}"):
        wire.decode(bytes(wire.MAX_MESSAGE_BYTES + 1))


TAGS_OF_VERSION_2 = """
    Accept Accepted Canvass CanvassReply Chosen Compare Compared Diverged Fetch FetchState Forgotten Founding
    Heartbeat HeartbeatAck Learn Prepare Promise Propose ReadIndex ReadIndexReply Reject Release State
"""


def test_the_tags_of_a_version_are_the_same_in_every_release() -> None:
    assert wire.VERSION == 2, "a new version has tags of its own, and keeps a codec for those of version 2"
    assert sorted(kind.__struct_config__.tag for kind in get_args(AnyMessage)) == TAGS_OF_VERSION_2.split()
