from hypothesis import given
from hypothesis import strategies as st

from paxos.quorum import can_reach_quorum, is_quorum, is_quorum_of_each, reached_by_quorum
from paxos.types import Configuration

NAMES = [f"n{number}" for number in range(1, 8)]
configurations = st.integers(1, 7).map(lambda size: Configuration(tuple(NAMES[:size])))
senders = st.lists(st.sampled_from([*NAMES, "stranger", "another"]))


@given(configurations, senders, senders)
def test_rule_9_any_two_quorums_share_a_voter(configuration: Configuration, one: list[str], other: list[str]) -> None:
    if is_quorum(one, configuration) and is_quorum(other, configuration):
        assert set(one) & set(other) & set(configuration.voters)


@given(configurations, senders)
def test_rule_9_only_the_set_of_voters_counts(configuration: Configuration, answers: list[str]) -> None:
    voters = {sender for sender in answers if sender in configuration.voters}
    assert (
        is_quorum(answers, configuration)
        == is_quorum(voters, configuration)
        == (2 * len(voters) > len(configuration.voters))
    )


def test_rule_9_strangers_and_repetitions_make_no_majority() -> None:
    configuration = Configuration(("n1", "n2", "n3"))
    assert not is_quorum(["n1", "n1", "n1", "n7", "n8"], configuration)
    assert is_quorum(["n1", "n3"], configuration)


@given(configurations, senders)
def test_a_quorum_is_out_of_reach_exactly_when_those_against_leave_none(
    configuration: Configuration, against: list[str]
) -> None:
    left = [voter for voter in configuration.voters if voter not in against]
    assert can_reach_quorum(against, [configuration]) == is_quorum(left, configuration)


@given(configurations, st.dictionaries(st.sampled_from([*NAMES, "stranger"]), st.integers(0, 9)))
def test_rule_15_the_number_that_a_quorum_reached_is_the_highest_such(
    configuration: Configuration, values: dict[str, int]
) -> None:
    def reached(number: int) -> bool:
        return is_quorum([node for node, value in values.items() if value >= number], configuration)

    found = reached_by_quorum(values, [configuration])
    if found is None:
        assert not is_quorum(list(values), configuration)
    else:
        assert reached(found)
        assert not reached(found + 1)


@given(configurations, configurations, senders)
def test_rule_27_what_speaks_for_several_memberships_takes_a_majority_of_each(
    one: Configuration, other: Configuration, answers: list[str]
) -> None:
    assert is_quorum_of_each(answers, [one, other]) == (is_quorum(answers, one) and is_quorum(answers, other))
    both = can_reach_quorum(answers, [one]) and can_reach_quorum(answers, [other])
    assert can_reach_quorum(answers, [one, other]) == both


@given(configurations, configurations, st.dictionaries(st.sampled_from([*NAMES, "stranger"]), st.integers(0, 9)))
def test_rule_27_the_number_that_all_memberships_reached_is_the_least_of_theirs(
    one: Configuration, other: Configuration, values: dict[str, int]
) -> None:
    each = [reached_by_quorum(values, [configuration]) for configuration in (one, other)]
    expected = None if None in each else min(number for number in each if number is not None)
    assert reached_by_quorum(values, [one, other]) == expected


def test_rule_29_learners_and_witnesses_count_as_what_they_are() -> None:
    configuration = Configuration(("n1", "n2", "n3"), learners=("n4", "n5"), witnesses=("n3",))
    assert configuration.members == ("n1", "n2", "n3", "n4", "n5")
    assert not is_quorum(["n1", "n4", "n5"], configuration)
    assert is_quorum(["n1", "n3"], configuration)
