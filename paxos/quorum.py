"""Majorities over sets of voters.

Any two majorities of the same voters share a voter: everything that Paxos promises rests on this (Lamport, "Paxos Made
Simple", section 2.2). Senders are counted by name, never by number of answers, and only those who vote (rule 9). What
speaks for slots of several memberships needs a majority of each.
"""

from collections.abc import Collection, Iterable, Mapping

from paxos.types import Membership, NodeId


def is_quorum(senders: Collection[NodeId], membership: Membership) -> bool:
    """True when `senders` contain a majority of the voters."""
    voters = membership.voters
    return 2 * sum(voter in senders for voter in voters) > len(voters)


def is_quorum_of_each(senders: Collection[NodeId], memberships: Iterable[Membership]) -> bool:
    """True when `senders` contain a majority of every membership."""
    return all(is_quorum(senders, membership) for membership in memberships)


def can_reach_quorum(against: Collection[NodeId], memberships: Iterable[Membership]) -> bool:
    """True when the voters that are not `against` still make a majority of every membership."""
    return all(
        is_quorum([voter for voter in membership.voters if voter not in against], membership)
        for membership in memberships
    )


def reached_by_quorum(values: Mapping[NodeId, int], memberships: Iterable[Membership]) -> int | None:
    """The highest number that a majority of every membership has reached. None while fewer have any."""
    reached = [_reached(values, membership) for membership in memberships]
    return min((number for number in reached if number is not None), default=None) if None not in reached else None


def _reached(values: Mapping[NodeId, int], membership: Membership) -> int | None:
    """The quorum-th largest."""
    reached = sorted((values[voter] for voter in membership.voters if voter in values), reverse=True)
    majority = len(membership.voters) // 2 + 1
    return reached[majority - 1] if len(reached) >= majority else None
