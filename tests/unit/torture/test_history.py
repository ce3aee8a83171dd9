"""Small histories that are sound, and such that are not."""

from tests.torture.history import CallKind, CallOutcome, RecordedCall, judge


def call(
    kind: CallKind,
    at: tuple[int, int],
    value: str | None = None,
    revision: int | None = None,
    *,
    outcome: CallOutcome = "answered",
    key: str = "k",
    expected: str | None = None,
) -> RecordedCall:
    return RecordedCall(kind, key, "n1", *at, outcome, value, revision, expected)


GOOD = [
    call("put", (0, 10), "a", 1),
    call("get", (11, 20), "a", 1),
    call("put", (12, 30), "b", 2),
    call("quorum", (15, 18), "a", 1),
    call("delete", (31, 40), revision=3),
    call("delete", (41, 50)),
    call("stale", (41, 45), "a", 1),
    call("get", (51, 60)),
    call("put", (0, 70), "x", outcome="refused"),
]


def test_a_history_that_an_order_explains_is_good() -> None:
    told: list[tuple[int, int]] = []
    verdict = judge(GOOD, lambda done, total: told.append((done, total)))
    assert verdict.keys == 1
    assert (verdict.illegal, verdict.unverified, verdict.backwards, verdict.lost) == ([], [], [], [])
    assert told == [(1, 1)]


def test_a_read_of_an_overwritten_value_is_illegal_and_its_revision_went_back() -> None:
    verdict = judge([*GOOD[:3], call("get", (31, 40), "a", 1)])
    assert verdict.illegal == ["k"]
    assert len(verdict.backwards) == 1
    assert "get k = a at n1 with revision 1 was called after put k = b" in verdict.backwards[0]


def test_a_refused_write_must_not_be_seen() -> None:
    assert judge([call("put", (0, 10), "a", outcome="refused"), call("get", (11, 20), "a", 1)]).illegal == ["k"]


def test_a_write_of_unknown_outcome_may_be_seen_late_or_never() -> None:
    unknown = call("put", (0, 10), "a", outcome="unknown")
    for seen in [call("get", (100, 110), "a", 1), call("get", (100, 110))]:
        verdict = judge([unknown, call("get", (50, 60)), seen])
        assert (verdict.illegal, verdict.lost) == ([], [])


def test_the_illegal_key_with_the_fewest_calls_comes_first() -> None:
    def wrong(key: str, reads: int) -> list[RecordedCall]:
        return [call("get", (at, at + 1), "never put", 1, key=key) for at in range(reads)]

    assert judge([*wrong("long", 3), *wrong("short", 1), *wrong("middle", 2)]).illegal == ["short", "middle", "long"]


def test_a_write_needs_a_revision_above_all_that_were_answered_before_whatever_the_key() -> None:
    earlier = call("put", (0, 10), "a", 5, key="one")
    assert judge([earlier, call("put", (11, 20), "b", 6, key="two")]).backwards == []
    assert judge([earlier, call("put", (5, 20), "b", 4, key="two")]).backwards == []  # at the same time
    assert len(judge([earlier, call("put", (11, 20), "b", 4, key="two")]).backwards) == 1


def test_one_revision_belongs_to_one_write() -> None:
    twice = judge([call("put", (0, 10), "a", 1), call("put", (5, 20), "b", 1, key="other")])
    assert "have the same revision" in twice.backwards[0]
    other = judge([call("put", (0, 10), "a", 1), call("stale", (5, 20), "b", 1)])
    assert "differs from the write of this revision" in other.backwards[0]


def test_an_acknowledged_put_that_the_last_read_does_not_show_is_lost() -> None:
    put = call("put", (0, 10), "a", 1)
    assert len(judge([put, call("get", (100, 110))]).lost) == 1
    assert judge([put, call("delete", (11, 20), revision=2), call("get", (100, 110))]).lost == []
    assert judge([put, call("delete", (11, 20), outcome="unknown"), call("get", (100, 110))]).lost == []
    assert judge([put, call("put", (11, 20), "b", outcome="unknown"), call("get", (100, 110), "b", 2)]).lost == []


def test_an_acknowledged_write_whose_predecessor_is_back_is_lost() -> None:
    before = call("put", (0, 10), "a", 1)
    for write in (call("put", (11, 20), "b", 2), call("delete", (11, 20), revision=2)):
        assert len(judge([before, write, call("get", (100, 110), "a", 1)]).lost) == 1


def bad(*calls: RecordedCall) -> bool:
    verdict = judge(calls)
    return bool(verdict.illegal or verdict.backwards or verdict.lost)


PUT_A = call("put", (0, 10), "a", 1)
SWAPPED = call("swap", (11, 20), "b", 2, expected="a")


def test_of_two_swaps_of_one_value_only_one_may_be_done() -> None:
    other = call("swap", (12, 22), "c", 3, expected="a")
    assert not bad(PUT_A, SWAPPED, call("get", (30, 40), "b", 2))
    assert bad(PUT_A, SWAPPED, other)
    assert not bad(PUT_A, SWAPPED, call("swap", (12, 22), "c", 3, expected="b"))


def test_a_swap_that_was_to_find_nothing_must_find_nothing() -> None:
    assert not bad(call("swap", (0, 10), "a", 1))
    assert bad(PUT_A, call("swap", (11, 20), "b", 2))


def test_a_condition_that_did_not_hold_is_a_read_of_the_revision_it_met() -> None:
    assert not bad(PUT_A, SWAPPED, call("compare", (21, 30), revision=2))
    assert bad(PUT_A, SWAPPED, call("compare", (21, 30), revision=1))
    assert bad(PUT_A, call("compare", (11, 20)))  # absent, it says
    unknown = call("put", (11, 20), "b", outcome="unknown")
    assert not bad(PUT_A, unknown, call("compare", (21, 30), revision=5))  # nobody knows the value of revision 5


def test_the_two_keys_of_a_pair_are_one_register() -> None:
    written = [call("pair", (0, 10), "a", 1), call("pair-swap", (11, 20), "b", 2, expected="a")]
    assert not bad(*written, call("both", (21, 30), "b", 2), call("half", (31, 40), "b", 2))
    assert bad(*written, call("half", (21, 30), "b", 2), call("half", (31, 40), "a", 1))
    assert bad(*written, call("both", (21, 30), "b of 2 beside a of 1", 2))


def test_a_pair_that_is_gone_is_lost() -> None:
    assert judge([call("pair", (0, 10), "a", 1), call("both", (11, 20))]).lost
