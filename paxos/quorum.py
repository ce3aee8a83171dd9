"""Majorities over sets of voters.

Any two majorities of the same voters share a voter: everything that Paxos promises rests on this (Lamport, "Paxos Made
Simple", section 2.2). Senders are counted by name, never by number of answers, and only those who vote (rule 9).
"""

from collections.abc import Collection, Mapping

from paxos.types import Membership, NodeId


def is_quorum(senders: Collection[NodeId], membership: Membership) -> bool:
    """True when `senders` contain a majority of the voters."""
    voters = membership.voters
    return 2 * sum(voter in senders for voter in voters) > len(voters)


def can_reach_quorum(against: Collection[NodeId], membership: Membership) -> bool:
    """True when the voters that are not `against` still make a majority."""
    return is_quorum([voter for voter in membership.voters if voter not in against], membership)


def reached_by_quorum(values: Mapping[NodeId, int], membership: Membership) -> int | None:
    """The highest number that a majority of voters has reached: the quorum-th largest. None while fewer have any."""
    reached = sorted((values[voter] for voter in membership.voters if voter in values), reverse=True)
    majority = len(membership.voters) // 2 + 1
    return reached[majority - 1] if len(reached) >= majority else None
