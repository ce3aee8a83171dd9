"""Size of commands: the room that a command takes in a batch, and the growth of the state that it causes."""

from typing import assert_never

from kvstore.api.commands import (
    AcquireLock,
    Command,
    Compare,
    Delete,
    DeleteSpan,
    ExpireLease,
    Get,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    KeyCommand,
    LeasedPut,
    List,
    Operation,
    Put,
    Reconfigure,
    RecordLeader,
    ReleaseLock,
    RevokeLease,
    Transact,
)
from kvstore.state_machine.digest import RECORD_BYTES
from kvstore.state_machine.state_machine import StateMachine
from kvstore.state_machine.transactions import spans_of
from kvstore.state_machine.view import Records

OVERHEAD_BYTES = 32
"""Room that a command takes in a batch beside its key and value, rounded up."""
GROWTH = -(-RECORD_BYTES // OVERHEAD_BYTES)
"""Bound on the growth of the state by a command, as a multiple of the room that the command takes in a batch."""
KEY_BYTES = 10
"""Bytes that take about as long to replicate as a condition on one key takes to evaluate."""
_INTERNAL_BYTES = RECORD_BYTES + 32
"""Bytes of an internal record beside the name and the value in it, rounded up."""


def size_bytes(command: Command | Operation) -> int:
    """Return the room that a command takes in a batch."""
    match command:
        case Put(key=key, value=value):
            return len(key) + len(value) + OVERHEAD_BYTES
        case LeasedPut(key=key, value=value):
            return 2 * len(key) + len(value) + 4 * OVERHEAD_BYTES  # up to three records
        case Delete(key=key) | Get(key=key):
            return len(key) + OVERHEAD_BYTES
        case DeleteSpan(span=span) | List(span=span):
            return len(span.start) + len(span.end or b"") + OVERHEAD_BYTES
        case Transact(compares=compares, then=then, otherwise=otherwise):
            conditions = sum(_compare_bytes(compare) for compare in compares)
            return OVERHEAD_BYTES + conditions + sum(map(size_bytes, then)) + sum(map(size_bytes, otherwise))
        case Idempotent(command=command):
            return size_bytes(command) + 4 * OVERHEAD_BYTES
        case AcquireLock(name=name, value=value):
            return len(name) + len(value) + 3 * OVERHEAD_BYTES
        case GrantLease() | KeepLeaseAlive() | RevokeLease() | ReleaseLock() | RecordLeader() | ExpireLease():
            return 2 * OVERHEAD_BYTES + (len(command.name) if isinstance(command, ReleaseLock) else 0)
        case Reconfigure(membership=membership):
            return OVERHEAD_BYTES * (1 + len(membership.members))
        case _:
            assert_never(command)


def work_of(command: Command, command_bytes: int, machine: StateMachine) -> int:
    """Return the work of a command of `command_bytes`, as the number of bytes that take as long to replicate. The keys
    that the command may read or change count, as far as they are known before it is applied."""
    match command:
        case Idempotent(command=repeatable):
            return work_of(repeatable, command_bytes, machine)
        case DeleteSpan() | Transact():
            keys = sum(min(machine.most_keys(span), limit) for span, limit in spans_of(command))
            return command_bytes + KEY_BYTES * keys
        case RevokeLease(lease=number) | ExpireLease(lease=number):
            lease = machine.lease_index.leases.get(number)
            return command_bytes + KEY_BYTES * lease.size if lease is not None else command_bytes
        case _:
            return command_bytes


def exceeds_quota(command: KeyCommand, command_bytes: int, machine: StateMachine, quota_bytes: int) -> bool:
    """Return True if `command`, of `command_bytes` in a batch, may enlarge the state beyond `quota_bytes`."""
    if machine.size_bytes + GROWTH * command_bytes <= quota_bytes:
        return False
    growth = growth_of(command, machine)
    return growth > 0 and machine.size_bytes + growth > quota_bytes


def growth_of(command: KeyCommand | Operation, records: Records) -> int:
    """Return the most bytes by which `command` may enlarge the state. The kept answer to an Idempotent command is not
    counted."""
    match command:
        case Put(key=key, value=value):
            return records.growth(key, value)
        case LeasedPut(key=key, value=value):
            return max(0, records.growth(key, value)) + len(key) + 2 * _INTERNAL_BYTES
        case Transact(then=then, otherwise=otherwise):
            return max(sum(max(0, growth_of(each, records)) for each in branch) for branch in (then, otherwise))
        case Idempotent(command=command):
            return growth_of(command, records)
        case GrantLease():
            return _INTERNAL_BYTES
        case AcquireLock(name=name, value=value):
            return len(name) + len(value) + 2 * _INTERNAL_BYTES
        case _:
            return 0


def _compare_bytes(compare: Compare) -> int:
    on, operand = compare.on, compare.operand
    names = len(on) if isinstance(on, bytes) else len(on.start) + len(on.end or b"")
    return OVERHEAD_BYTES + names + (len(operand) if isinstance(operand, bytes) else 0)
