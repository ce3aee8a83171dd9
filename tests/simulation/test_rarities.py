"""Each rare event that `tests.simulation.rarities` makes likely happens, and is checked."""

from unittest.mock import patch

import pytest

from paxos.lease import LeaseGrant
from paxos.options import Options
from paxos.types import GrantTerms, Time
from tests.simulation.rarities import ACTORS
from tests.simulation.run import Run
from tests.simulation.scenario import DISRUPTIONS, RARITIES, Scenario, draw

NAMES = (*RARITIES, *filter(None, DISRUPTIONS))


def test_every_rarity_is_drawn_and_has_an_actor() -> None:
    assert set(NAMES) == set(ACTORS) == {name for seed in range(100) for name in draw(seed).rarities}


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_cluster_stands_each_rarity(name: str) -> None:
    summary = Run(Scenario(seed=1, tenants=2, rarities=(name,), faulty_ms=2000)).run()
    assert summary.operations > 0


def test_an_ambush_finds_an_acceptor_that_does_not_wait_after_a_restart() -> None:
    """Rule 17."""
    init = LeaseGrant.__init__

    def without_a_wait(grant: LeaseGrant, options: Options, now: Time, *, restarted: bool, granted: GrantTerms) -> None:
        init(grant, options, now, restarted=False, granted=granted)

    scenario = Scenario(seed=1, rarities=("ambushes",), options={"election_jitter_ms": 2})
    with (
        patch.object(LeaseGrant, "__init__", without_a_wait),
        pytest.raises(AssertionError, match=" a lease "),
    ):
        Run(scenario).run()
