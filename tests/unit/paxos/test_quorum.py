from hypothesis import given
from hypothesis import strategies as st

from paxos.quorum import can_reach_quorum, is_quorum, is_quorum_of_each, reached_by_quorum
from paxos.types import Membership

NAMES = [f"n{number}" for number in range(1, 8)]
memberships = st.integers(1, 7).map(lambda size: Membership(tuple(NAMES[:size])))
senders = st.lists(st.sampled_from([*NAMES, "stranger", "another"]))


@given(memberships, senders, senders)
def test_rule_9_any_two_quorums_share_a_voter(membership: Membership, one: list[str], other: list[str]) -> None:
    if is_quorum(one, membership) and is_quorum(other, membership):
        assert set(one) & set(other) & set(membership.voters)


@given(memberships, senders)
def test_rule_9_only_the_set_of_voters_counts(membership: Membership, answers: list[str]) -> None:
    voters = {sender for sender in answers if sender in membership.voters}
    assert is_quorum(answers, membership) == is_quorum(voters, membership) == (2 * len(voters) > len(membership.voters))


def test_rule_9_strangers_and_repetitions_make_no_majority() -> None:
    membership = Membership(("n1", "n2", "n3"))
    assert not is_quorum(["n1", "n1", "n1", "n7", "n8"], membership)
    assert is_quorum(["n1", "n3"], membership)


@given(memberships, senders)
def test_a_quorum_is_out_of_reach_exactly_when_those_against_leave_none(
    membership: Membership, against: list[str]
) -> None:
    left = [voter for voter in membership.voters if voter not in against]
    assert can_reach_quorum(against, [membership]) == is_quorum(left, membership)


@given(memberships, st.dictionaries(st.sampled_from([*NAMES, "stranger"]), st.integers(0, 9)))
def test_rule_15_the_number_that_a_quorum_reached_is_the_highest_such(
    membership: Membership, values: dict[str, int]
) -> None:
    def reached(number: int) -> bool:
        return is_quorum([node for node, value in values.items() if value >= number], membership)

    found = reached_by_quorum(values, [membership])
    if found is None:
        assert not is_quorum(list(values), membership)
    else:
        assert reached(found)
        assert not reached(found + 1)


@given(memberships, memberships, senders)
def test_rule_27_what_speaks_for_several_memberships_takes_a_majority_of_each(
    one: Membership, other: Membership, answers: list[str]
) -> None:
    assert is_quorum_of_each(answers, [one, other]) == (is_quorum(answers, one) and is_quorum(answers, other))
    both = can_reach_quorum(answers, [one]) and can_reach_quorum(answers, [other])
    assert can_reach_quorum(answers, [one, other]) == both


@given(memberships, memberships, st.dictionaries(st.sampled_from([*NAMES, "stranger"]), st.integers(0, 9)))
def test_rule_27_the_number_that_all_memberships_reached_is_the_least_of_theirs(
    one: Membership, other: Membership, values: dict[str, int]
) -> None:
    each = [reached_by_quorum(values, [membership]) for membership in (one, other)]
    expected = None if None in each else min(number for number in each if number is not None)
    assert reached_by_quorum(values, [one, other]) == expected


def test_rule_29_learners_and_witnesses_count_as_what_they_are() -> None:
    membership = Membership(("n1", "n2", "n3"), learners=("n4", "n5"), witnesses=("n3",))
    assert membership.members == ("n1", "n2", "n3", "n4", "n5")
    assert not is_quorum(["n1", "n4", "n5"], membership)
    assert is_quorum(["n1", "n3"], membership)
