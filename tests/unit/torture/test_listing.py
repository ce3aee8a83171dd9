"""Lists, which must have all keys in order at one revision."""

import msgspec
import pytest

from bench.load.recording import LatencySummary, summary
from tests.torture.listing import ListAnswer, ListingResult, ReceivedList, examined


def listed(*records: tuple[str, int], revision: int = 9) -> ReceivedList:
    lines = b"".join(msgspec.json.encode({"key": key, "revision": at}) + b"\n" for key, at in records)
    half = len(lines) // 2  # parts end anywhere
    return examined(ListAnswer(2.0, 0.1, revision, [lines[:half], lines[half:], b'{"more":false}\n']))


def test_a_list_in_order_up_to_its_revision_is_sound() -> None:
    found = listed(("a", 9), ("b", 1), ("c", 3))
    assert (found.keys, found.wrong, found.seconds) == (3, "", 2.0)


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([("a", 1), ("a", 1)], "a follows a"),
        ([("b", 1), ("a", 2)], "a follows b"),
        ([("a", 10)], "a has revision 10, the list 9"),
    ],
)
def test_a_key_twice_out_of_order_or_later_is_reported(records: list[tuple[str, int]], wrong: str) -> None:
    assert listed(*records).wrong == wrong


def latencies(milliseconds: int) -> LatencySummary:
    found = summary({1000 * milliseconds: 100})
    assert found is not None
    return found


def test_memory_and_latency_have_limits() -> None:
    good = ListingResult(
        keys=3,
        value_bytes=1,
        rate=1.0,
        before=latencies(10),
        during=latencies(19),
        lists=[listed(("a", 1))] * 2,
        before_mb=100.0,
        max_mb=149.0,
    )
    assert good.within_limits
    assert good.sound
    assert not msgspec.structs.replace(good, max_mb=151.0).within_limits
    assert not msgspec.structs.replace(good, during=latencies(21)).within_limits
    assert not msgspec.structs.replace(good, lists=[listed(("a", 1)), listed()]).sound
