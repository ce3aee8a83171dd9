"""Whether a list is all keys, in order, as of one revision."""

import msgspec
import pytest

from tests.torture.listing import Answer, Listed, Lists, looked_into


def listed(*records: tuple[str, int], revision: int = 9) -> Listed:
    lines = b"".join(msgspec.json.encode({"key": key, "revision": at}) + b"\n" for key, at in records)
    half = len(lines) // 2  # parts end anywhere
    return looked_into(Answer(2.0, 0.1, revision, [lines[:half], lines[half:], b'{"more":false}\n']))


def test_a_list_in_order_up_to_its_revision_is_sound() -> None:
    found = listed(("a", 9), ("b", 1), ("c", 3))
    assert (found.keys, found.wrong, found.seconds) == (3, "", 2.0)


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([("a", 1), ("a", 1)], "a comes behind a"),
        ([("b", 1), ("a", 2)], "a comes behind b"),
        ([("a", 10)], "a is of revision 10, the list of 9"),
    ],
)
def test_what_is_twice_out_of_order_or_later_is_told(records: list[tuple[str, int]], wrong: str) -> None:
    assert listed(*records).wrong == wrong


def test_a_run_is_within_its_limits_when_nobody_notices_much() -> None:
    good = Lists(
        keys=3,
        value_bytes=1,
        per_second=1.0,
        before_s=2.0,
        before_ms=[1.0, 2.0],
        during_ms=[2.0, 3.0],
        lists=[listed(("a", 1))] * 2,
        before_mb=100.0,
        most_mb=149.0,
        refused=0,
    )
    assert good.within_limits
    for change in ({"most_mb": 151.0}, {"during_ms": [2.0, 9.0]}, {"refused": 1}, {"before_s": 3.0}):
        assert not msgspec.structs.replace(good, **change).within_limits
    assert not msgspec.structs.replace(good, lists=[listed(("a", 1)), listed()]).sound
