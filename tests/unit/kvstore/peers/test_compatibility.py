"""The settings that peers compare."""

from kvstore.peers.compatibility import compatibility_of, differing
from kvstore.peers.handshake_messages import MAX_COMPATIBILITY_CHARS

FIRST = ("n1", "n2", "n3")


def test_members_that_the_data_began_with_are_named_whatever_the_settings_say() -> None:
    assert compatibility_of(500, 10_000, ("n3", "n1", "n2")) == "members=n1,n2,n3 lease_ms=500 clock_drift_ppm=10000"


def test_a_replica_that_joined_names_no_members() -> None:
    assert compatibility_of(500, 10_000, ()) == "lease_ms=500 clock_drift_ppm=10000"


def test_terms_fit_a_handshake_however_many_members_there_are() -> None:
    many = [f"{number:032}" for number in range(9)]
    longest = compatibility_of(600_000, 500_000, [*many[:4], "n" * 28], f"{2**43}:{2**64 - 1:016x}")
    compatibility = compatibility_of(500, 10_000, many)
    assert len(compatibility) < len(longest) <= MAX_COMPATIBILITY_CHARS
    assert compatibility != compatibility_of(500, 10_000, many[1:])


def test_only_names_that_both_ends_send_are_compared() -> None:
    founder, joined = compatibility_of(500, 10_000, FIRST, "9:a"), compatibility_of(500, 10_000, (), "9:a")
    assert joined == "lease_ms=500 clock_drift_ppm=10000 restored=9:a"
    assert differing(founder, joined) == differing(joined, compatibility_of(500, 10_000, FIRST)) == {}
    assert differing(founder, compatibility_of(600, 10_000, FIRST, "9:b")) == {
        "lease_ms": ("500", "600"),
        "restored": ("9:a", "9:b"),
    }
