"""The founding of a cluster under crashes and losses, on whole replicas."""

import msgspec
import pytest

from tests.simulation.foundings import found_again, found_anyhow, found_with_other_states
from tests.simulation.run import Run
from tests.simulation.scenario import Scenario

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


FOUNDER_REMOVED = """{"seed":79020511,"spares":1,"changes_ms":30,"arrive_ms":20,"clients":1,"tenants":2,"keys":1,
"think_ms":3,"faulty_ms":1000,"options":{"lease_ms":150,"election_jitter_ms":37,"bulk_bytes":100},"applied_records":1,
"limits":{"log_slots":100,"history_revisions":0,"history_age_ms":300},"faults":{"copies":0.1,"delay_ms":[0.2,20.0],
"fsync_ms":[1.0,20.0],"crash_in_step":0.003},
"strikes":[[156,"cut",["n1"],1251],[181,"mute",["n3"],1207],[323,"crash",["n2"],644]]}"""


def test_a_founding_member_that_is_removed_before_it_hears_of_the_founding_is_not_waited_for() -> None:
    """Node n2 agrees, and is removed by n1 and n3 while it is down: no member tells it anything any more."""
    run = Run(msgspec.json.decode(FOUNDER_REMOVED, type=Scenario))
    run.run()
    assert run.safety.reference.membership.get("n2") is None
