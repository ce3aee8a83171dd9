import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos.types import NOOP, ZERO, Ballot, Configuration, GrantTerms, pack, unpack

ballots = st.builds(Ballot, st.integers(0, 3), st.sampled_from(["n1", "n2", "n3"]))


@given(ballots, ballots)
def test_rule_7_ballots_are_totally_ordered_and_two_nodes_never_make_the_same(one: Ballot, other: Ballot) -> None:
    assert (one < other) + (one == other) + (one > other) == 1
    if one.node != other.node:
        assert one != other
    if one.round < other.round:
        assert one < other


@given(ballots)
def test_rule_7_zero_is_below_every_ballot_of_a_node(ballot: Ballot) -> None:
    assert ballot > ZERO


def test_a_ballot_reads_as_round_and_node() -> None:
    assert str(Ballot(7, "n2")) == "7.n2"


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_a_value_gives_its_payloads_back_in_order(payloads: list[bytes]) -> None:
    assert list(unpack(pack(payloads))) == payloads


def test_rule_10_a_no_op_holds_no_payload() -> None:
    assert pack([]) == NOOP
    assert list(unpack(NOOP)) == []


def test_a_value_of_another_origin_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack(b"\xc1")


def test_members_are_all_who_vote_or_learn() -> None:
    assert Configuration(("n1", "n2"), learners=("n3",), witnesses=("n2",)).members == ("n1", "n2", "n3")


def test_rule_17_joined_terms_last_at_least_as_long_as_each_of_them() -> None:
    assert GrantTerms(500, 20_000).joined(GrantTerms(10_000, 1_000)) == GrantTerms(10_000, 20_000)
