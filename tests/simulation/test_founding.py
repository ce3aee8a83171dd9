"""The founding of a cluster under crashes and losses, on whole replicas."""

from random import Random

import pytest
from msgspec.structs import replace

from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.scenario import Faults, Scenario, Strike, StrikeKind, moment

SEEDS = 10
PARTS = range(10)
FAULTY_MS = 400
STEP_MS = 50
KINDS = (StrikeKind.CRASH, StrikeKind.STORM, StrikeKind.PAUSE, StrikeKind.CUT, StrikeKind.DISK, StrikeKind.FULL)


def hostile(seed: int) -> Scenario:
    """Return a scenario whose faults all happen around the first start."""
    rng = Random(f"founding/{seed}")
    scenario = Scenario(seed=seed, nodes=rng.choice((1, 2, 3, 5)), arrive_ms=rng.choice((0, 20, FAULTY_MS)))
    strikes = [
        Strike(rng.randrange(FAULTY_MS), rng.choice(KINDS), (rng.choice(scenario.names),), rng.randrange(1, FAULTY_MS))
        for _ in range(rng.choice((0, 3, 10)))
    ]
    faults = Faults(
        loss=rng.choice((0, 0.1, 0.5)),
        copies=rng.choice((0, 0.1)),
        replay=rng.choice((0, 0.02)),
        delay_ms=rng.choice(((0.2, 1.0), (1.0, 60.0))),
        turn_ms=rng.choice(((0.0, 0.2), (0.0, 20.0))),
        fsync_ms=rng.choice(((0.1, 0.5), (1.0, 20.0))),
        crash_in_step=rng.choice((0.02, 0.1, 0.3)),
    )
    return replace(scenario, faults=faults, strikes=tuple(sorted(strikes, key=lambda strike: strike.at_ms)))


@pytest.mark.parametrize("part", PARTS)
def test_rule_30_a_cluster_is_founded_once_all_members_are_there_whatever_happened_before(part: int) -> None:
    founded_late = 0
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        scenario = hostile(seed)
        cluster = SimulatedCluster(scenario)
        Safety(cluster)
        cluster.world.run(moment(FAULTY_MS))
        founded_late += not cluster.is_founded
        cluster.heal()
        due = cluster.world.now + moment(scenario.recovery_ms)
        while not cluster.is_founded:
            assert cluster.world.now < due, f"seed {seed}: the cluster is never founded"
            cluster.world.run(cluster.world.now + moment(STEP_MS))
    assert founded_late, "no cluster was still without a founding when the faults ended"
