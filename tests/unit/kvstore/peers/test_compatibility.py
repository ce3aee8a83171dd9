"""The settings that peers compare."""

from kvstore.peers.compatibility import compatibility_of
from kvstore.peers.handshake_messages import MAX_COMPATIBILITY_CHARS

FIRST = ("n1", "n2", "n3")


def test_members_that_the_data_began_with_are_named_whatever_the_settings_say() -> None:
    assert compatibility_of(500, 10_000, ("n3", "n1", "n2")) == "members=n1,n2,n3 lease_ms=500 clock_drift_ppm=10000"


def test_a_replica_that_joined_names_no_members() -> None:
    assert compatibility_of(500, 10_000, ()) == "lease_ms=500 clock_drift_ppm=10000"


def test_terms_fit_a_handshake_however_many_members_there_are() -> None:
    many = [f"{number:032}" for number in range(9)]
    compatibility = compatibility_of(500, 10_000, many)
    assert len(compatibility) <= MAX_COMPATIBILITY_CHARS
    assert compatibility != compatibility_of(500, 10_000, many[1:])
