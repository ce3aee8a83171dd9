import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.framing import FrameReader, FrameTooLongError, frame


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_payloads_come_out_as_they_went_in_however_the_stream_is_cut(payloads: list[bytes], cut: int) -> None:
    stream = b"".join(map(frame, payloads))
    reader = FrameReader(max_bytes=50)
    received = [payload for at in range(0, len(stream), cut) for payload in reader.feed(stream[at : at + cut])]
    assert received == payloads


def test_a_frame_is_its_length_in_four_bytes_and_its_payload() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_a_frame_of_the_greatest_length_passes_and_one_more_is_refused_at_its_head() -> None:
    assert list(FrameReader(max_bytes=8).feed(frame(bytes(8)))) == [bytes(8)]
    with pytest.raises(FrameTooLongError, match=r"frame of 9 bytes, at most 8"):
        list(FrameReader(max_bytes=8).feed(frame(bytes(9))[:4]))


def test_the_bound_may_rise_between_two_frames_of_one_piece() -> None:
    reader = FrameReader(max_bytes=4)
    received = []
    for payload in reader.feed(frame(bytes(4)) + frame(bytes(9))):
        received.append(payload)
        reader.max_bytes = 9
    assert received == [bytes(4), bytes(9)]
