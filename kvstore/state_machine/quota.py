"""What commands take: in a batch, and of the state."""

from typing import assert_never

from kvstore.api.commands import (
    Acquire,
    Command,
    Compare,
    Delete,
    DeleteSpan,
    Expire,
    Get,
    Grant,
    Idempotent,
    KeepAlive,
    KeyCommand,
    Lead,
    LeasedPut,
    List,
    Operation,
    Put,
    Reconfigure,
    Release,
    Revoke,
    Transact,
)
from kvstore.state_machine.state_machine import RECORD_BYTES
from kvstore.state_machine.view import Records

OVERHEAD_BYTES = 32
"""What a command takes in a batch beside its key and value, rounded up."""
GROWTH = -(-RECORD_BYTES // OVERHEAD_BYTES)
"""What a command takes in a batch, so many times, is more than the state may grow by."""
_OWN_BYTES = RECORD_BYTES + 32
"""What one of the store's own records takes beside the name and the value in it, rounded up."""


def size_bytes(command: Command | Operation) -> int:
    """Room that a command takes in a batch."""
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
        case Acquire(name=name, value=value):
            return len(name) + len(value) + 3 * OVERHEAD_BYTES
        case Grant() | KeepAlive() | Revoke() | Release() | Lead() | Expire():
            return 2 * OVERHEAD_BYTES + (len(command.name) if isinstance(command, Release) else 0)
        case Reconfigure(membership=membership):
            return OVERHEAD_BYTES * (1 + len(membership.members))
        case _:
            assert_never(command)


def growth_of(command: KeyCommand | Operation, records: Records) -> int:
    """By how many bytes the state may grow at most; the answer that Once keeps is not counted."""
    match command:
        case Put(key=key, value=value):
            return records.growth(key, value)
        case LeasedPut(key=key, value=value):
            return max(0, records.growth(key, value)) + len(key) + 2 * _OWN_BYTES
        case Transact(then=then, otherwise=otherwise):
            return max(sum(max(0, growth_of(each, records)) for each in branch) for branch in (then, otherwise))
        case Idempotent(command=command):
            return growth_of(command, records)
        case Grant():
            return _OWN_BYTES
        case Acquire(name=name, value=value):
            return len(name) + len(value) + 2 * _OWN_BYTES
        case _:
            return 0


def _compare_bytes(compare: Compare) -> int:
    on, operand = compare.on, compare.operand
    names = len(on) if isinstance(on, bytes) else len(on.start) + len(on.end or b"")
    return OVERHEAD_BYTES + names + (len(operand) if isinstance(operand, bytes) else 0)
