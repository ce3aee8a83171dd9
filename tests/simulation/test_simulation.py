"""Whole clusters of the production node under simulated faults. A failure names the seed and the command to repeat
it."""

import os
import subprocess
import sys

import pytest

from tests.simulation.run import Run
from tests.simulation.scenario import LEADER, Faults, Scenario, Strike, StrikeKind, draw
from tests.simulation.search import try_seeds
from tests.simulation.shrink import failure, shrink, simplifications
from tests.simulation.trace import EventTrace

BATCH = 10
"""Seeds of one test: many enough to be worth a worker's while."""
FIXED = range(0, 40, BATCH)
MORE = range(40, 200, BATCH)
EVENTFUL = 16
"""A seed with many strikes of many kinds."""


@pytest.mark.parametrize("first", [*FIXED, *(pytest.param(first, marks=pytest.mark.slow) for first in MORE)])
def test_a_faulty_cluster_stays_linearizable_and_recovers(first: int) -> None:
    found = try_seeds(list(range(first, first + BATCH)))
    for seed, violation in found.failed.items():
        print(f"{violation}: python -m tests.simulation {seed}")
    assert not found.failed
    assert found.summary.operations > 0


def test_a_change_of_the_members_that_was_requested_during_the_faults_may_come_while_the_leader_is_watched() -> None:
    """Seed 971524061: a replica still proposes the change more than half a second after the last fault."""
    assert failure(draw(971524061)) is None


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_same_seed_gives_the_same_trace_in_every_process(hash_seed: str) -> None:
    """Rule 21: nothing rests on the order of sets or of hashing."""
    scenario = draw(EVENTFUL)
    assert len(scenario.strikes) > 10
    trace = EventTrace(digest=True)
    Run(scenario, trace).run()
    command = [sys.executable, "-m", "tests.simulation", str(EVENTFUL), "--digest"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == trace.digest()


@pytest.mark.slow
def test_every_fault_is_drawn_and_hits_somebody() -> None:
    """What never happens is not tested."""
    summary = try_seeds(list(range(30))).summary
    assert set(summary.struck) == set(StrikeKind)
    assert {name for name, count in summary.frames.items() if count} == {
        "sent", "lost", "copied", "strayed", "replayed", "echoed", "cut off", "held"
    }  # fmt: skip
    assert summary.ballots > 10 * summary.runs / 3


def test_clocks_that_drift_more_than_declared_break_the_lease() -> None:
    """The declared bound carries weight: without it two replicas hold a lease at the same time."""
    assert any(failure(drifting(seed)) == "AssertionError: n and n hold a lease at the same time" for seed in range(20))


def drifting(seed: int) -> Scenario:
    """Half of the clocks run twice as fast as the others; leaders are cut off again and again."""
    strikes = tuple(Strike(at_ms, StrikeKind.CUT, (LEADER,), 700) for at_ms in range(500, 8000, 900))
    return Scenario(seed=seed, faults=Faults(drift_ppm=900_000), strikes=strikes)


def test_a_scenario_that_fails_is_shrunk_to_what_it_takes() -> None:
    """Here it takes one strike, one fault, one option and nothing else."""
    scenario = next(
        scenario
        for scenario in map(draw, range(1000))
        if len(scenario.strikes) > 10 and scenario.faults.loss and "window" in scenario.options and scenario.core
    )
    needed = scenario.strikes[len(scenario.strikes) // 2]

    def fails(simpler: Scenario) -> str | None:
        whole = needed in simpler.strikes and simpler.faults.loss and "window" in simpler.options
        return "it" if whole else None

    simplest = shrink(scenario, fails)
    assert simplest.strikes == (needed,)
    assert simplest.faults == Faults(loss=scenario.faults.loss)
    assert simplest.options == {"window": scenario.options["window"]}
    assert (simplest.core, simplest.keys, simplest.clients) == ((), 1, 1)
    assert not any(fails(simpler) for simpler in simplifications(simplest) if simpler.faulty_ms == simplest.faulty_ms)
