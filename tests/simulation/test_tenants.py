"""What tenants may be told of a lock: stories that must pass, and those that must not."""

import pytest

from paxos.types import MS
from tests.simulation.tenants import Tenancy


@pytest.fixture
def tenancy() -> Tenancy:
    """Lease 1 is sure to live for 50 ms, lease 2 for 1,000."""
    made = Tenancy()
    made.alive = {1: (0, 50), 2: (0, 1000)}
    return made


def test_the_next_one_holds_it_once_the_lease_is_over(tenancy: Tenancy) -> None:
    tenancy.holds("t0", 1, 5, 10 * MS)
    tenancy.holds("t1", 2, 6, 50 * MS)
    assert tenancy.fence == 6


def test_two_never_hold_it_at_once(tenancy: Tenancy) -> None:
    tenancy.holds("t0", 1, 5, 10 * MS)
    with pytest.raises(AssertionError, match="t1 holds the lock with fence 6 while t0 does"):
        tenancy.holds("t1", 2, 6, 20 * MS)


def test_who_held_it_before_may_be_told_after_the_next_one(tenancy: Tenancy) -> None:
    tenancy.holds("t1", 2, 6, 60 * MS)
    tenancy.holds("t0", 1, 5, 61 * MS)


def test_but_not_while_its_lease_lives(tenancy: Tenancy) -> None:
    tenancy.holds("t1", 2, 6, 20 * MS)
    with pytest.raises(AssertionError, match="t0 holds the lock with fence 5 while t1 does"):
        tenancy.holds("t0", 1, 5, 21 * MS)
