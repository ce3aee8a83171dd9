"""The first membership of a cluster, for tests to which the data of its members does not matter."""

from collections.abc import Iterable

from kvstore.api.membership import MembershipVersion, founded
from paxos.types import NodeId


def genesis(voters: Iterable[NodeId]) -> list[MembershipVersion]:
    """Return the membership of `voters`, none of which is enrolled."""
    return founded([(name, 0) for name in sorted(voters)], ())
