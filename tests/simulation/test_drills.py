"""Each drill passes on sound code, and finds the bug that it is there for."""

from collections.abc import Callable
from unittest.mock import patch

import pytest

from kvstore.replica.divergence import DivergenceCheck
from kvstore.replica.founding import FoundingManager
from paxos.configuration import ConfigurationHistory
from paxos.leader import Leader
from paxos.lease import LeaderLease
from paxos.proposer import Phase1
from tests.simulation.drills import DRILLS
from tests.simulation.scenario import DRILLS as DRAWN
from tests.simulation.scenario import draw


def test_every_drill_is_drawn() -> None:
    assert set(DRAWN) == set(DRILLS) == {draw(seed).drill for seed in range(len(DRAWN))}


@pytest.mark.parametrize("name", DRAWN)
def test_a_sound_cluster_stands_each_drill(name: str) -> None:
    for seed in range(3):
        DRILLS[name](seed, None)


def fails(name: str, seeds: int = 8) -> None:
    """Run a drill until it fails."""
    for seed in range(seeds):
        DRILLS[name](seed, None)


FOUND: dict[str, tuple[type, str, Callable[..., object], str, str]] = {
    "a divergence is passed over": (DivergenceCheck, "_check", lambda *_: None, "divergence", "diverged"),
    "forgotten votes are not told": (
        Leader, "acknowledged", lambda *_: None, "forgotten votes", "nobody"
    ),
    "a founder waits for nobody": (FoundingManager, "_is_complete", lambda *_: True, "founding", "founds a cluster of"),
    "a witness may lead": (ConfigurationHistory, "may_lead", lambda *_: True, "witness", "lets the witness"),
    "a lease goes on over a change": (LeaderLease, "reconfigure", lambda *_: None, "new voters", "holds a lease of"),
    "promises cover any change": (Phase1, "covers", lambda *_: True, "new voters", "have promised"),
}  # fmt: skip
"""By what is wrong: the method that does it, what it does instead, the drill that finds it, and what that says."""


@pytest.mark.parametrize("wrong", FOUND)
def test_a_drill_finds_its_bug(wrong: str) -> None:
    owner, method, instead, drill, message = FOUND[wrong]
    with patch.object(owner, method, instead), pytest.raises(AssertionError, match=message):
        fails(drill)
