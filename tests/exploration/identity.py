"""When two machines are the same, and copies of machines.

What nothing that is explored depends on is left out of a machine's identity, and all of it is named here.
"""

import pickle
from collections import deque
from collections.abc import Hashable
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from kvstore.replica.leader_watch import LeaderWatch
from kvstore.replica.node import Node
from paxos.acceptor import Acceptor
from paxos.candidate import Candidate
from paxos.election import ElectionTimer
from paxos.leader import Leader
from paxos.learner import Learner
from paxos.lease import LeaderLease
from paxos.log import Log
from paxos.messages import Message
from paxos.proposer import Phase1, Pipeline, Proposal
from paxos.ready import Envelope
from paxos.replica import Replica
from paxos.role import RoleState
from paxos.types import Ballot, PValue, Time
from tests.exploration.machine import ExploredMachine

ATOMS = (int, bool, str, bytes, type(None), Ballot, PValue)

STATELESS = ("stats", "founding", "_proposals", "_reader", "_membership_manager", "_divergence", "_grants", "_on_batch")
"""The fields of a node that nothing changes here: metrics, the founding, which is over, requests of clients, of which
there are none, and what looks after the members, compares states and records the settings of leases. All copies share
them."""

IGNORED: dict[type, set[str]] = {
    Node: {
        *STATELESS,
        "heard",
        "id",
        "view",
        "_checkpointer",
        "_snapshot_receiver",
        "_state_reads",
    },
    LeaderWatch: {"_replica", "_clock", "_heard_at"},
    Replica: {"node", "options", "configurations", "_reads", "_delivered"},
    RoleState: {"_context", "_reads"},
    Leader: {"_node", "_configurations", "_options", "_last_ack_at", "_own_reads", "_reads", "_phase1"},
    Learner: {"_configurations"},
    Log: {"_options"},
    Candidate: {"_node", "_others", "_configurations", "_deciding", "_options"},
    Phase1: {"_deciding"},
    Pipeline: {"_configurations", "_options"},
    ElectionTimer: {"_rng"},
    LeaderLease: {"_deciding"},
}
"""What never changes, when somebody was heard last, reads, of which there are none, late promises, which only a change
of the members asks for, and the state: it follows from the chosen prefix, and payloads that are no batches leave no
trace in it."""

TIMES: dict[type, set[str]] = {
    Node: {"_clock", "_boot"},
    RoleState: {"election_timer", "attempts", "followed", "highest_round"},
    Acceptor: {"grant", "_accepted"},
    Leader: {"lease", "_own_votes", "_confirmed_at", "_heartbeat_due", "_votes", "_votes_at_round"},
    Learner: {"_fetching", "_unanswered"},
    Candidate: {"_timeout", "_nonce", "_willing", "_resend_at", "expires"},
    Proposal: {"proposed_at", "resend_at", "wait"},
}
"""Left out, too, where leases have no length: nothing depends on the time then but when a replica gives up and runs,
and that is an input of its own; a candidate's first question is answered at once, and no heartbeat tells anybody of its
votes."""

LOGS: dict[type, set[str]] = {
    Node: {"_boot"},
    Replica: {"_out", "_learner", "_log"},
    RoleState: {"_learner", "election_timer", "attempts", "followed", "highest_round"},
    Acceptor: {"log", "_out"},
    Leader: {"_learner", "_announced", "_chosen_by", "_own_votes", "_confirmed_at", "pipeline"},
    LeaderLease: {"_answered", "confirmed"},
}
"""Left out where leases are explored and no Accept arrives: the log stays as it is, nobody waits for a quorum."""

DEADLINES = {"until", "due", "expires", "_resend_at", "_heartbeat_due"}
"""How long ago one passed makes no difference."""


def identity(machine: ExploredMachine) -> Hashable:
    """Equal for machines that behave alike from now on."""
    timeless = machine.scope.timeless
    replica = machine.node.replica
    left = machine.left
    now = None if timeless else machine.clock()
    done = (machine.name, left.runs, left.hand_overs, left.steps, machine.losing, machine.payload, machine.votes)
    state = (machine.storage.hard_state.promised, _value(machine.node, now, set()))
    # A follower's leader is nothing to it before it runs, when it forgets it; and all that only says when and how to
    # run is nothing to who runs no more.
    followed = replica._roles.followed if machine.ballot is not None else None
    running = replica._roles.highest_round if left.runs else 0
    if not timeless:
        due = (
            (_value(replica._roles.election_timer, now, set()), replica._roles.attempts, replica._roles.followed)
            if left.runs
            else None
        )
        return done, state, followed, running, due
    fetching = replica._learner._fetching
    log = (machine.storage.hard_state[:3], frozenset(machine.storage._log.values()), fetching and fetching[0])
    return done, state, followed, running, log


def pickled(machine: ExploredMachine) -> bytes:
    """A copy to be woken with `unpickled`."""
    scope, fields = machine.scope, vars(machine.node)
    kept = {name: fields.pop(name) for name in STATELESS}
    del machine.scope
    machine.begin()
    data = pickle.dumps(machine, pickle.HIGHEST_PROTOCOL)
    machine.scope = scope
    fields.update(kept)
    return data


def unpickled(data: bytes, like: ExploredMachine) -> ExploredMachine:
    """The machine as it was, with nothing done since. What has no state comes from `like`."""
    machine: ExploredMachine = pickle.loads(data)
    machine.scope = like.scope
    shared = vars(like.node)
    vars(machine.node).update({name: shared[name] for name in STATELESS})
    return machine


def _value(value: Any, now: Time | None, seen: set[int]) -> Hashable:
    kind = type(value)
    if kind in ATOMS or isinstance(value, Message | Envelope | Enum):
        return value  # type: ignore[no-any-return]
    if isinstance(value, tuple | list | deque):
        return tuple([_value(item, now, seen) for item in value])
    if kind in {set, frozenset}:
        return frozenset(value)
    if kind is dict:
        return frozenset([(key, _value(item, now, seen)) for key, item in value.items()])
    if id(value) in seen:
        return kind.__name__
    seen.add(id(value))
    present = value.__struct_fields__ if isinstance(value, msgspec.Struct) else tuple(vars(value))
    return tuple([_value(_at(value, name, now), now, seen) for name in _compared(kind.__name__, present, now is None)])


def _at(value: Any, name: str, now: Time | None) -> Any:
    field = getattr(value, name)
    return max(field, now) if now is not None and name in DEADLINES else field


@cache
def _compared(kind: str, names: tuple[str, ...], timeless: bool) -> tuple[str, ...]:
    tables = (IGNORED, TIMES if timeless else LOGS)
    skipped = {name for table in tables for type_ in table if type_.__name__ == kind for name in table[type_]}
    return tuple([name for name in names if name not in skipped])
