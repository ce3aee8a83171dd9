import pytest

from paxos.errors import InvariantError
from paxos.log import Log
from paxos.options import Options
from paxos.types import Ballot, PValue, Slot

B1, B2 = Ballot(1, "n1"), Ballot(2, "n2")


def at(slot: Slot, value: bytes = b"x", ballot: Ballot = B1) -> PValue:
    return PValue(slot, ballot, value)


def log(chosen: Slot = 0, tail: list[PValue] | None = None, **options: int) -> Log:
    return Log(Options(**options), chosen, tail or [])


def test_a_new_log_is_empty_from_slot_1_on() -> None:
    new = log()
    assert (new.floor, new.chosen, new.last) == (1, 0, 0)
    assert new.get(1) is None
    assert new.page(1) == ((), 0)


def test_a_recovered_log_holds_its_tail_and_knows_where_it_begins() -> None:
    recovered = log(5, [at(4), at(5), at(7)])
    assert (recovered.floor, recovered.chosen, recovered.last) == (4, 5, 7)
    assert recovered.get(4) == at(4)
    assert recovered.page(4) == ((at(4), at(5), at(7)), 0)


def test_rule_11_without_a_tail_all_below_the_chosen_prefix_is_cut() -> None:
    assert log(5).floor == 6


def test_rule_11_a_tail_above_the_prefix_leaves_no_hole_below_it() -> None:
    assert log(5, [at(8)]).floor == 6


def test_rule_12_the_chosen_prefix_moves_slot_by_slot() -> None:
    held = log()
    held.put(at(1))
    held.put(at(2, b"y"))
    assert held.choose_next() == at(1)
    assert held.choose_next() == at(2, b"y")
    assert held.chosen == 2


def test_rule_8_a_higher_ballot_replaces_what_is_held() -> None:
    held = log()
    held.put(at(1, b"old"))
    held.put(at(1, b"new", B2))
    assert held.get(1) == at(1, b"new", B2)


def test_rule_10_the_value_of_a_chosen_slot_never_changes() -> None:
    held = log(1, [at(1)])
    held.put(at(1, b"x", B2))
    assert held.get(1) == at(1, b"x", B2)
    with pytest.raises(InvariantError, match="slot 1 is chosen"):
        held.put(at(1, b"y", B2))


def test_slots_below_the_floor_stay_out() -> None:
    held = log(5)
    held.put(at(3))
    assert held.get(3) is None
    assert held.floor == 6


def test_a_page_ends_where_the_next_value_does_not_fit_and_names_its_slot() -> None:
    held = log(tail=[at(1, b"aa"), at(2, b"bb"), at(4, b"c")], page_bytes=4)
    assert held.page(1) == ((at(1, b"aa"), at(2, b"bb")), 4)
    assert held.page(4) == ((at(4, b"c"),), 0)


def test_a_page_holds_at_least_one_value_however_big() -> None:
    held = log(tail=[at(1, b"much too big"), at(2)], page_bytes=1)
    assert held.page(1) == ((at(1, b"much too big"),), 2)


def test_rule_11_a_page_below_the_floor_is_refused() -> None:
    with pytest.raises(InvariantError, match="lacks the values below"):
        log(5).page(5)


def test_chosen_slots_are_kept_up_to_a_number() -> None:
    held = log(recent_slots=2)
    for slot in range(1, 5):
        held.put(at(slot))
        held.choose_next()
    assert held.floor == 3
    assert [held.get(slot) for slot in range(1, 5)] == [None, None, at(3), at(4)]


def test_chosen_slots_are_kept_up_to_a_size() -> None:
    held = log(recent_bytes=5)
    for slot, value in enumerate([b"aa", b"bb", b"ccc", b"much too big"], 1):
        held.put(at(slot, value))
        held.choose_next()
        assert held.floor == [1, 1, 2, 5][slot - 1]


def test_what_is_not_chosen_is_never_cut() -> None:
    held = log(tail=[at(1, b"big"), at(2, b"big")], recent_slots=0, recent_bytes=0)
    assert held.floor == 1
    held.choose_next()
    assert held.floor == 2
    assert held.get(2) == at(2, b"big")


def test_a_recovered_tail_that_is_too_long_is_cut_at_once() -> None:
    assert log(3, [at(1), at(2), at(3)], recent_slots=1).floor == 3


def test_rule_25_a_jump_keeps_what_is_accepted_above_it_and_nothing_below() -> None:
    held = log(2, [at(1), at(2), at(4), at(7), at(8)])
    held.skip_to(6)
    assert (held.chosen, held.floor, held.last) == (6, 7, 8)
    assert [held.get(slot) for slot in (1, 2, 4, 6)] == [None] * 4
    assert held.page(7) == ((at(7), at(8)), 0)
    assert held.choose_next() == at(7)


def test_rule_25_a_jump_beyond_all_that_is_accepted_leaves_an_empty_log_behind_it() -> None:
    held = log(2, [at(1), at(2), at(4)])
    held.skip_to(9)
    assert (held.chosen, held.floor, held.last) == (9, 10, 9)
    assert held.page(10) == ((), 0)


def test_after_a_jump_chosen_slots_are_kept_up_to_a_size_as_before() -> None:
    held = log(recent_bytes=4)
    held.put(at(1, b"aaa"))
    held.choose_next()
    held.skip_to(5)
    for slot, floor in ((6, 6), (7, 6), (8, 7)):
        held.put(at(slot, b"bb"))
        held.choose_next()
        assert held.floor == floor


@pytest.mark.parametrize("slot", [0, 4, 5])
def test_rule_25_a_jump_never_goes_back(slot: Slot) -> None:
    with pytest.raises(InvariantError, match="would go down"):
        log(5).skip_to(slot)


def test_rule_5_the_highest_slot_under_a_ballot_is_known() -> None:
    held = log(tail=[at(1), at(2, b"x", B2), at(3), at(4, b"x", B2)])
    assert [held.last_under(ballot) for ballot in (B1, B2, Ballot(9, "n1"))] == [3, 4, 0]
