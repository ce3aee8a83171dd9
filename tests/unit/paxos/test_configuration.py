import pytest

from paxos.configuration import ConfigurationHistory, ConfigurationVersion
from paxos.errors import InvariantError
from paxos.types import Configuration

THREE = Configuration(("n1", "n2", "n3"))
FOUR = Configuration(("n1", "n2", "n3", "n4"))
FIVE = Configuration(("n1", "n2", "n3", "n4", "n5"))


def configurations(*later: ConfigurationVersion, node: str = "n1") -> ConfigurationHistory:
    return ConfigurationHistory(node, [ConfigurationVersion(1, THREE), *later])


def test_rule_27_a_membership_decides_the_slots_from_its_first_on_and_none_before() -> None:
    one = configurations(ConfigurationVersion(40, FOUR), ConfigurationVersion(80, FIVE))
    assert [one.at(slot) for slot in (1, 39, 40, 79, 80, 1000)] == [THREE, THREE, FOUR, FOUR, FIVE, FIVE]
    assert (one.newest, one.pending_from) == (FIVE, 80)


def test_a_slot_before_all_that_is_known_is_decided_by_the_first_that_is() -> None:
    one = ConfigurationHistory("n1", [ConfigurationVersion(40, FOUR), ConfigurationVersion(80, FIVE)])
    assert one.at(39) is FOUR


def test_rule_27_what_speaks_for_all_slots_from_one_on_speaks_for_each_membership_that_decides_one_of_them() -> None:
    one = configurations(ConfigurationVersion(40, FOUR), ConfigurationVersion(80, FIVE))
    assert one.since(1) == one.since(39) == [THREE, FOUR, FIVE]
    assert one.since(40) == one.since(79) == [FOUR, FIVE]
    assert one.since(80) == one.since(81) == [FIVE]


def test_everybody_who_votes_or_learns_by_any_of_them_is_another_member() -> None:
    one = configurations(ConfigurationVersion(40, Configuration(("n1", "n3"), learners=("n4", "n2"))))
    assert one.others == ["n2", "n3", "n4"]
    assert configurations(node="n9").others == ["n1", "n2", "n3"]


def test_a_membership_is_forgotten_when_all_its_slots_are_decided_and_its_members_with_it() -> None:
    one = configurations(ConfigurationVersion(40, FOUR), ConfigurationVersion(80, Configuration(("n1", "n4"))))
    assert not one.forget_before(39)
    assert one.at(39) is THREE
    assert one.forget_before(40)
    assert one.since(40) == [FOUR, Configuration(("n1", "n4"))]
    assert one.others == ["n2", "n3", "n4"]
    assert not one.forget_before(79)
    assert one.forget_before(80)
    assert one.others == ["n4"]
    assert not one.forget_before(1000)
    assert one.newest == Configuration(("n1", "n4"))


def test_several_memberships_can_be_over_at_once() -> None:
    one = configurations(ConfigurationVersion(40, FOUR), ConfigurationVersion(80, FIVE))
    assert one.forget_before(90)
    assert one.at(1) is FIVE


def test_memberships_come_in_order_and_one_is_always_known() -> None:
    with pytest.raises(InvariantError, match="was added after one"):
        configurations(ConfigurationVersion(40, FOUR)).add(ConfigurationVersion(40, FIVE))
    with pytest.raises(InvariantError, match="without a configuration"):
        ConfigurationHistory("n1", [])


def test_with_a_later_state_come_its_memberships() -> None:
    one = configurations(ConfigurationVersion(40, FOUR))
    one.replace([ConfigurationVersion(90, FIVE)])
    assert (one.newest, one.others) == (FIVE, ["n2", "n3", "n4", "n5"])


def test_rule_29_whoever_is_to_lead_votes_for_every_slot_from_the_next_on_and_is_no_witness() -> None:
    promoted = configurations(ConfigurationVersion(40, FOUR), node="n4")
    assert not promoted.may_lead(39)
    assert promoted.may_lead(40)
    demoted = configurations(ConfigurationVersion(40, Configuration(("n1", "n2"), learners=("n3",))), node="n3")
    assert not demoted.may_lead(39)
    witness = configurations(ConfigurationVersion(40, Configuration(("n1", "n2", "n3"), witnesses=("n3",))), node="n3")
    assert not witness.may_lead(39)
    assert not witness.may_lead(40)
    assert configurations(ConfigurationVersion(40, FOUR)).may_lead(1)


def test_rule_28_a_promise_is_made_to_none_but_voters_of_the_newest_membership() -> None:
    one = configurations(
        ConfigurationVersion(40, Configuration(("n1", "n2", "n4"), learners=("n3",), witnesses=("n2",)))
    )
    assert [node for node in ("n1", "n2", "n3", "n4", "n5") if one.may_be_candidate(node)] == ["n1", "n4"]


def test_rule_28_whoever_may_have_a_new_disk_is_not_heard_though_it_votes_by_an_earlier_membership() -> None:
    one = configurations(ConfigurationVersion(40, Configuration(("n1", "n2"), learners=("n3",), unverified=("n3",))))
    assert [node for node in ("n1", "n2", "n3", "n4") if one.is_voter(node)] == ["n1", "n2"]
    assert configurations(ConfigurationVersion(40, Configuration(("n1", "n2"), learners=("n3",)))).is_voter("n3")
