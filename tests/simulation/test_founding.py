"""The founding of a cluster under crashes and losses, on whole replicas."""

import pytest

from kvstore.api.commands import Reconfigure
from paxos.messages import FoundingState
from tests.simulation.foundings import found_again, found_anyhow, found_with_other_states
from tests.simulation.network import links
from tests.simulation.scenario import StrikeKind
from tests.simulation.story import Story

SEEDS = 10
PARTS = range(10)


@pytest.mark.parametrize("part", PARTS)
def test_rule_30_a_cluster_is_founded_once_all_members_are_there_whatever_happened_before(part: int) -> None:
    late = [found_anyhow(seed) for seed in range(part * SEEDS, (part + 1) * SEEDS)]
    assert any(late), "no cluster was still without a founding when the faults ended"


@pytest.mark.parametrize("part", PARTS)
def test_rule_31_members_that_begin_with_different_states_found_no_cluster_whatever_happens(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        found_with_other_states(seed)


@pytest.mark.parametrize("part", PARTS)
def test_rule_31_members_that_are_restored_again_repeat_nothing_while_another_one_has_run(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        found_again(seed)


def test_a_founding_member_that_is_removed_before_it_hears_of_the_founding_is_not_waited_for() -> None:
    """Node n2 agrees and hears of no other agreement. The others remove it: no member tells it anything any more."""
    story = Story()
    cut = links(StrikeKind.CUT, ["n2"], ["n1", "n3"])
    story.cluster.network.holds.append(
        lambda sender, to, message, _: to == "n2" and isinstance(message, FoundingState) and sender == "n3"
    )
    while story.machines["n2"].durable.hard_state.founding is None:
        story.run_ms(0.1)
    story.run_ms(1.5)  # its agreement arrives, and it hears nothing of the founding
    story.cluster.network.cut(cut)
    story.run_ms(2000)
    assert [machine.node is not None and machine.node.view.known for machine in story.machines.values()] == [
        True,
        False,
        True,
    ]
    assert not story.cluster.is_founded
    leader = story.leader()
    assert leader.node is not None
    change = Reconfigure(leader.node.membership.without("n2"))
    leader.happens(lambda node: node.write(change, lambda _: None))
    story.run_ms(2000)
    assert story.safety.reference.membership.get("n2") is None
    assert story.cluster.is_founded
