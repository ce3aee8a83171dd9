
import pytest

from tests.exploration import setups
from tests.exploration.setups import Setup


@pytest.mark.parametrize(("setup", "states", "transitions"), [(setups.ONE_SLOT, 0, 0)])
def test_a_small_bound_is_exhausted_without_a_violation(setup: Setup, states: int, transitions: int) -> None:
    found = setup.explore(10_000)
    assert not found.violation, found.violation
