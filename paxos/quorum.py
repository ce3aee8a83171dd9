"""Majorities over sets of voters.

Any two majorities of the same voters share a voter; the safety of Paxos depends on this (Lamport, "Paxos Made Simple",
section 2.2). Only voters count, and each voter once, however many answers it sent (rule 9). A decision about slots of
several configurations needs a majority of each configuration.
"""

from collections.abc import Collection, Iterable, Mapping

from paxos.types import Configuration, NodeId


def is_quorum(senders: Collection[NodeId], configuration: Configuration) -> bool:
    """Return True if `senders` include a majority of the voters."""
    voters = configuration.voters
    return 2 * sum(voter in senders for voter in voters) > len(voters)


def is_quorum_of_each(senders: Collection[NodeId], configurations: Iterable[Configuration]) -> bool:
    """Return True if `senders` include a majority of every configuration."""
    return all(is_quorum(senders, configuration) for configuration in configurations)


def can_reach_quorum(against: Collection[NodeId], configurations: Iterable[Configuration]) -> bool:
    """Return True if the voters other than those in `against` are a majority of every configuration."""
    return all(
        is_quorum([voter for voter in configuration.voters if voter not in against], configuration)
        for configuration in configurations
    )


def reached_by_quorum(values: Mapping[NodeId, int], configurations: Iterable[Configuration]) -> int | None:
    """Return the highest number that a majority of every configuration has reached; None if, in some configuration, no
    majority has a number in `values`."""
    reached = [_reached(values, configuration) for configuration in configurations]
    return min((number for number in reached if number is not None), default=None) if None not in reached else None


def _reached(values: Mapping[NodeId, int], configuration: Configuration) -> int | None:
    """Return the highest number that a majority of the voters has reached, None if no majority has a number."""
    reached = sorted((values[voter] for voter in configuration.voters if voter in values), reverse=True)
    majority = len(configuration.voters) // 2 + 1
    return reached[majority - 1] if len(reached) >= majority else None
