"""Foundings of clusters under crashes and losses, on whole replicas."""

from random import Random

from msgspec.structs import replace

from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.quorums import Quorums
from tests.simulation.scenario import Faults, Scenario, Strike, StrikeKind, moment
from tests.simulation.trace import EventTrace

FAULTY_MS = 400
STEP_MS = 50
RESTORED = 20
"""Slot of the restored state with which some clusters begin."""
KINDS = (StrikeKind.CRASH, StrikeKind.STORM, StrikeKind.PAUSE, StrikeKind.CUT, StrikeKind.DISK, StrikeKind.FULL)


def hostile(seed: int, nodes: tuple[int, ...] = (1, 2, 3, 5), restored: tuple[int, ...] = (0, RESTORED)) -> Scenario:
    """Return a scenario whose faults all happen around the first start, with one of the numbers in `nodes`, and a state
    as of one of the slots in `restored`."""
    rng = Random(f"founding/{seed}")
    scenario = Scenario(
        seed=seed,
        nodes=rng.choice(nodes),
        arrive_ms=rng.choice((0, 20, FAULTY_MS)),
        restored=rng.choice(restored),
    )
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


def found_anyhow(seed: int, trace: EventTrace | None = None) -> bool:
    """Found a cluster once all members are there, whatever happened before. Return True if it was still without a
    founding when the faults ended."""
    cluster = SimulatedCluster(hostile(seed), trace)
    Quorums(cluster, Safety(cluster))
    cluster.world.run(moment(FAULTY_MS))
    late = not cluster.is_founded
    cluster.heal()
    found(cluster)
    return late


def found_with_other_states(seed: int, trace: EventTrace | None = None) -> None:
    """One member was restored with other numbers, or not at all. When it is restored like the others, they found the
    cluster."""
    rng = Random(f"odd/{seed}")
    scenario = hostile(seed, nodes=(2, 3, 5), restored=(RESTORED,))
    cluster = SimulatedCluster(scenario, trace)
    Quorums(cluster, Safety(cluster))
    odd = cluster.machines[rng.choice(scenario.names)]
    odd.restore(rng.choice((0, RESTORED + 1)))
    run_ms(cluster, FAULTY_MS)
    cluster.heal()
    run_ms(cluster, scenario.recovery_ms)
    assert not any(knows(cluster)), f"seed {seed}: a cluster was founded with different states"
    for machine in cluster.machines.values():
        assert machine.node is not None
        named = set(machine.node.founding.unlike)
        assert named == (set(scenario.names) if machine is odd else {odd.name}) - {machine.name}, f"seed {seed}"
    odd.restore(RESTORED)
    found(cluster)


def found_again(seed: int, trace: EventTrace | None = None) -> None:
    """Members that are restored again, even a majority of them, from the same backup with the same numbers, found no
    second cluster; the old disks of that majority, put back, continue."""
    rng = Random(f"again/{seed}")
    scenario = hostile(seed, nodes=(2, 3, 5), restored=(RESTORED,))
    cluster = SimulatedCluster(scenario, trace)
    safety = Safety(cluster)
    Quorums(cluster, safety)
    run_ms(cluster, FAULTY_MS)
    cluster.heal()
    found(cluster)
    run_ms(cluster, rng.choice((0, 10, scenario.recovery_ms)))
    before = safety.reference.applied
    victims = [cluster.machines[name] for name in rng.sample(scenario.names, scenario.nodes - 1)]
    for machine in victims:
        machine.restore(RESTORED)
    run_ms(cluster, scenario.recovery_ms)
    for machine in victims:
        assert machine.node is not None
        assert not machine.node.view.known, f"seed {seed}: {machine.name} founded a second cluster"
    for machine in victims:
        machine.put_back()
    run_ms(cluster, scenario.recovery_ms)
    assert all(knows(cluster))
    assert safety.reference.applied >= before
    assert cluster.leader() is not None, f"seed {seed}: the disks that were put back form no majority"


def found(cluster: SimulatedCluster) -> None:
    """Run until every member knows the membership."""
    due = cluster.world.now + moment(cluster.scenario.recovery_ms)
    while not all(knows(cluster)):
        assert cluster.world.now < due, f"seed {cluster.scenario.seed}: the cluster is never founded"
        run_ms(cluster, STEP_MS)


def run_ms(cluster: SimulatedCluster, duration_ms: int) -> None:
    cluster.world.run(cluster.world.now + moment(duration_ms))


def knows(cluster: SimulatedCluster) -> list[bool]:
    """For each replica, whether it runs and knows a membership."""
    return [one.node is not None and one.node.view.known for one in cluster.machines.values()]
