"""What replicas must agree on, and which members count at a start."""

from pathlib import Path

import pytest

from kvstore.api.membership import Roster
from kvstore.peers.compatibility import refuse_other_founders, terms_of
from kvstore.peers.handshake import MAX_TERMS_CHARS
from kvstore.server.config import Address, Settings
from storage.base import Identity, StorageError

FIRST = ("n1", "n2", "n3")


def settings(*names: str) -> Settings:
    members = {name: Address("127.0.0.1", 9000 + number) for number, name in enumerate(names)}
    return Settings(node="n1", members=members, data=Path("d"), secret="0123456789abcdef")


def identity(*members: str) -> Identity:
    return Identity("c", "n1", 7, 1, members)


def test_members_that_the_data_began_with_are_named_whatever_the_settings_say() -> None:
    assert terms_of(settings("n1", "n4"), ("n3", "n1", "n2")) == "members=n1,n2,n3 lease_ms=500 clock_drift_ppm=10000"


def test_a_replica_that_joined_names_no_members() -> None:
    assert terms_of(settings(*FIRST), ()) == "lease_ms=500 clock_drift_ppm=10000"


def test_terms_fit_a_handshake_however_many_members_there_are() -> None:
    many = [f"{number:032}" for number in range(9)]
    terms = terms_of(settings(*FIRST), many)
    assert len(terms) <= MAX_TERMS_CHARS
    assert terms != terms_of(settings(*FIRST), many[1:])


@pytest.mark.parametrize("others", [("n1",), ("n1", "n2"), ("n1", "n2", "n4"), ("n1", "n2", "n3", "n4")])
def test_other_members_than_at_first_are_refused_until_the_cluster_has_spoken(others: tuple[str, ...]) -> None:
    """Majorities of two sets of voters need not meet."""
    with pytest.raises(StorageError, match=f"members n1,n2,n3, but the settings name {','.join(others)}: start this"):
        refuse_other_founders(identity(*FIRST), settings(*others), Roster(0))
    refuse_other_founders(identity(*FIRST), settings(*others), Roster(1))


@pytest.mark.parametrize("first", [(), FIRST])
def test_the_same_in_any_order_pass_and_so_does_whoever_joined(first: tuple[str, ...]) -> None:
    refuse_other_founders(identity(*first), settings("n3", "n1", "n2"), Roster(0))
