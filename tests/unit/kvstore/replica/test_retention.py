"""How much of the past stays."""

from hypothesis import given
from hypothesis import strategies as st

from kvstore.replica.retention import Retention, RetentionLimits
from paxos.types import MS
from storage.base import GENESIS, Truncation, first_of, revision_of

NOW = 10**12
HOUR = 3_600_000 * MS


def chain(slot: int) -> bytes:
    return b"%016d" % slot


def retention(*, cut: int = 0, compacted: int = 0, **limits: int) -> Retention:
    return Retention(RetentionLimits(**limits), Truncation(cut, chain(cut)), compacted)


def apply(one: Retention, *slots: int, size_bytes: int = 1) -> int:
    """Return the slot up to which the log may be truncated."""
    for slot in slots:
        one.applied(slot, chain(slot), size_bytes)
    assert one.truncation.chain == chain(one.truncation.slot)
    return one.truncation.slot


# The log


def test_rule_26_so_many_slots_are_kept_and_no_more() -> None:
    one = retention(log_slots=3)
    assert apply(one, 1, 2, 3) == 0
    assert [apply(one, slot) for slot in (4, 5, 6)] == [1, 2, 3]


def test_rule_26_so_many_bytes_are_kept_and_no_more() -> None:
    one = retention(log_bytes=10)
    assert apply(one, 1, 2, size_bytes=5) == 0
    assert apply(one, 3, size_bytes=1) == 1
    assert apply(one, 4, size_bytes=4) == 1
    assert apply(one, 5, size_bytes=6) == 3
    assert apply(one, 6, size_bytes=11) == 6
    assert apply(one, 7, 8, size_bytes=5) == 6


def test_with_a_limit_of_none_all_that_is_applied_may_go() -> None:
    assert apply(retention(log_slots=0), 1, 2) == 2


def test_after_a_start_the_cut_is_where_it_was() -> None:
    one = retention(cut=7, log_slots=2)
    assert one.truncation.slot == 7
    assert apply(one, 8, 9) == 7
    assert apply(one, 10) == 8


def test_rule_25_the_cut_goes_with_the_chain_up_to_it() -> None:
    one = Retention(RetentionLimits(log_slots=1), Truncation(), 0)
    assert one.truncation == Truncation(0, GENESIS)
    one.applied(1, b"first", 1)
    one.applied(2, b"second", 1)
    assert one.truncation == Truncation(1, b"first")


# The history


def supersede(one: Retention, *revisions: int, size_bytes: int = 1, now: int = NOW) -> None:
    for revision in revisions:
        one.changed(first_of(revision), size_bytes, now)


def compacted(one: Retention, now: int = NOW) -> int:
    one.compact(now)
    return revision_of(one.compacted)


def test_nothing_that_was_not_superseded_is_compacted() -> None:
    one = retention(history_revisions=0, history_bytes=0, history_age_ms=0)
    assert compacted(one, NOW + HOUR) == 0


def test_so_many_revisions_are_kept_within_a_stretch() -> None:
    one = retention(history_revisions=640)
    for revision in range(1, 2001):
        supersede(one, revision)
        kept = revision - compacted(one)
        assert kept <= 640 + 640 // 64 + 1
        assert revision < 640 or kept >= 640 - 640 // 64 - 1


def test_so_many_bytes_are_kept_within_a_stretch() -> None:
    one = retention(history_bytes=100, history_revisions=64)
    supersede(one, 1, 3, size_bytes=40)
    assert compacted(one) == 0
    supersede(one, 5, size_bytes=20)
    assert compacted(one) == 0
    supersede(one, 7, size_bytes=1)
    assert compacted(one) == 1
    supersede(one, 9, size_bytes=1000)
    assert compacted(one) == 7  # who watches has not heard of the last one yet
    supersede(one, 11)
    assert compacted(one) == 9


def test_it_is_kept_for_so_long_and_no_longer() -> None:
    one = retention(history_age_ms=3_600_000)
    supersede(one, 4, now=NOW)
    supersede(one, 8, now=NOW + 1000 * MS)
    assert compacted(one, NOW + HOUR) == 0
    assert compacted(one, NOW + HOUR + 1) == 4
    assert compacted(one, NOW + HOUR + 1000 * MS) == 4
    assert compacted(one, NOW + HOUR + 1000 * MS + 1) == 8


def test_what_comes_within_a_second_goes_together() -> None:
    one = retention(history_age_ms=0)
    supersede(one, 1, 2, now=NOW)
    supersede(one, 3, now=NOW + 999 * MS)
    supersede(one, 4, now=NOW + 1000 * MS)
    assert len(one._history) == 2
    assert compacted(one, NOW + 1) == 3


def test_what_may_go_goes_only_when_it_is_asked_to() -> None:
    one = retention(history_revisions=0)
    supersede(one, 1, 2, 3)
    assert one.compacted == 0
    one.compact(NOW)
    assert revision_of(one.compacted) == 3


def test_rule_25_another_state_has_neither_a_log_nor_a_history_before_it() -> None:
    one = retention(log_slots=2, history_revisions=0)
    apply(one, 1, 2)
    supersede(one, 1, 2)
    one.restart(Truncation(40, chain(40)), first_of(30))
    assert (one.truncation, one.compacted) == (Truncation(40, chain(40)), first_of(30))
    assert compacted(one) == 30
    assert apply(one, 41, 42) == 40
    assert apply(one, 43) == 41
    supersede(one, 50)
    assert compacted(one) == 50


@given(st.lists(st.integers(0, 20)), st.integers(0, 5), st.integers(0, 30))
def test_rule_26_no_limit_is_ever_exceeded_and_no_more_goes_than_must(
    sizes: list[int], log_slots: int, log_bytes: int
) -> None:
    one = retention(log_slots=log_slots, log_bytes=log_bytes)
    for slot, size in enumerate(sizes, 1):
        cut = apply(one, slot, size_bytes=size)
        kept = sizes[cut:slot]
        assert len(kept) <= log_slots
        assert sum(kept) <= log_bytes
        one_more = sizes[max(0, cut - 1) : slot]
        assert cut == 0 or len(one_more) > log_slots or sum(one_more) > log_bytes or cut < slot
