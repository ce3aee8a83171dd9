from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.framing import frame
from kvstore.peers.send_queue import FrameQueue


def test_the_queue_hands_out_the_oldest_first_in_pieces_of_the_asked_size() -> None:
    queue = FrameQueue(max_bytes=100)
    for payload in (b"a", b"bb", b"ccc"):
        assert queue.append(payload) == []
    assert queue.waiting_bytes == 6
    assert queue.take(2) == frame(b"a") + frame(b"bb")
    assert queue.take(2) == frame(b"ccc")
    assert not queue
    assert queue.waiting_bytes == 0


@given(st.lists(st.binary(max_size=12)), st.integers(0, 30))
def test_the_queue_keeps_the_newest_that_fit(payloads: list[bytes], max_bytes: int) -> None:
    queue = FrameQueue(max_bytes)
    dropped = []
    for payload in payloads:
        dropped += queue.append(payload)
        assert queue.waiting_bytes <= max_bytes
    kept = queue.clear()
    assert dropped + kept == payloads
    assert queue.waiting_bytes == 0
    assert not queue


def test_the_queue_drops_no_more_than_it_must() -> None:
    queue = FrameQueue(max_bytes=4)
    assert [queue.append(payload) for payload in (b"aa", b"bb", b"c", b"ddddd")] == [
        [],
        [],
        [b"aa"],
        [b"bb", b"c", b"ddddd"],
    ]
