from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paxos import wire
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Canvass,
    CanvassReply,
    Chosen,
    Fetch,
    FetchState,
    Forgotten,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Reject,
    Release,
    State,
)
from paxos.types import Ballot, PValue

counts = st.integers(0, 2**62)
names = st.text(max_size=32)
ballots = st.builds(Ballot, counts, names)
values = st.binary(max_size=50)
pvalues = st.lists(st.builds(PValue, counts, ballots, values), max_size=4).map(tuple)

MESSAGES: dict[type[AnyMessage], st.SearchStrategy[AnyMessage]] = {
    Canvass: st.builds(Canvass, counts, counts),
    CanvassReply: st.builds(CanvassReply, counts, st.booleans(), ballots, counts),
    Prepare: st.builds(Prepare, ballots, counts),
    Promise: st.builds(Promise, ballots, counts, pvalues, counts),
    Accept: st.builds(Accept, ballots, counts, values, counts),
    Accepted: st.builds(Accepted, ballots, counts),
    Chosen: st.builds(Chosen, ballots, counts),
    Reject: st.builds(Reject, ballots, ballots, counts),
    Heartbeat: st.builds(Heartbeat, ballots, counts, counts),
    HeartbeatAck: st.builds(HeartbeatAck, ballots, counts, st.booleans(), counts, counts),
    Forgotten: st.builds(Forgotten, ballots, counts),
    Release: st.builds(Release, ballots, names),
    Fetch: st.builds(Fetch, counts),
    Learn: st.builds(Learn, pvalues, counts, counts),
    FetchState: st.builds(FetchState, counts),
    State: st.builds(State, counts, values, counts, values, counts),
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
        Canvass(-1, 1),
    ],
)
def test_what_is_out_of_range_is_refused(message: AnyMessage) -> None:
    with pytest.raises(wire.WireError, match="malformed message"):
        wire.decode(wire.encode(message))


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    encoded = wire.encode(Release(Ballot(1, "n1"), "xx")).replace(b"xx", b"\xff\xfe")
    with pytest.raises(wire.WireError, match="malformed"):
        wire.decode(encoded)


def test_another_version_is_refused_and_named() -> None:
    with pytest.raises(wire.WireError, match=f"version 9, this replica speaks {wire.VERSION}"):
        wire.decode(b"\x09" + wire.encode(Fetch(1))[1:])


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(wire.WireError, match="version none"):
        wire.decode(b"")


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(wire.WireError, match=f"at most {wire.MAX_MESSAGE_BYTES}"):
        wire.decode(bytes(wire.MAX_MESSAGE_BYTES + 1))
