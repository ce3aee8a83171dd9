"""Commands that are done once, however often a client repeats them (rule 22).

A client numbers its requests within a client lease. The answer to a request is kept in a record that is attached to
the lease. So every replica has the answer, even after a restart, and it is deleted when the lease ends. The answers to
the last `KEPT` numbers of each lease are kept. An older number, or a number of a lease that has ended, is refused,
because its command may have been done before.
"""

from collections.abc import Callable, Iterable

import msgspec

from kvstore.api.commands import (
    AnswerExpired,
    AnswerNotKept,
    IdempotencyKeyReused,
    Idempotent,
    IdempotentResult,
    KeyResult,
    LeaseFull,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    RepeatableCommand,
    TooManyKeys,
)
from kvstore.state_machine.lease_index import IndexedLease, answer_key
from kvstore.state_machine.view import Records, Steps

KEPT = 1000
"""Limit of the numbers of one lease whose answers are kept: the highest ones."""
MAX_KEPT_BYTES = 64 << 10
"""Limit of the bytes of a kept answer. All replicas store the answer, and it is part of each snapshot."""

_NOT_DONE = (TooManyKeys, LeaseNotFound, LeaseFull, LockHeld, LockNotHeld)
"""Results of commands that had no effect. They are not kept, because the command may succeed when it is repeated."""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: bytes
    answer: KeyResult | AnswerNotKept


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


def run_idempotent(
    command: Idempotent, records: Records, do: Callable[[RepeatableCommand], Steps[KeyResult]]
) -> Steps[IdempotentResult]:
    """Return the kept answer to `command`, or do it with `do` and keep the answer."""
    lease = records.lease_index.leases.get(command.lease)
    if lease is None or command.number <= lease.top - KEPT:
        return AnswerExpired()
    key = answer_key(command.lease, command.number)
    known = records.internal(key)
    if known is not None:
        kept = _decode(known.value)
        return kept.answer if kept.fingerprint == command.fingerprint else IdempotencyKeyReused()
    result = yield from do(command.command)
    may_repeat = isinstance(result, _NOT_DONE)
    if not may_repeat and command.lease in records.lease_index.leases:  # the command may have ended the lease
        top = lease.top
        records.put_internal(key, _packed(command.fingerprint, result, records))
        for number in _outdated(lease, top):
            records.delete_internal(answer_key(command.lease, number))
    return result


def _packed(fingerprint: bytes, result: KeyResult, records: Records) -> bytes:
    packed = _encode(_Kept(fingerprint, result))
    return packed if len(packed) <= MAX_KEPT_BYTES else _encode(_Kept(fingerprint, AnswerNotKept(records.revision)))


def _outdated(lease: IndexedLease, top: int) -> Iterable[int]:
    """Return the numbers whose answers are to be deleted since the highest number has grown from `top`."""
    upto, grown = lease.top - KEPT, lease.top - top
    if grown > KEPT:
        return sorted(number for number in lease.answers if number <= upto)
    return [number for number in range(upto - grown + 1, upto + 1) if number in lease.answers]
