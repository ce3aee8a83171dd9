"""Commands that are done once, however often they come (rule 22).

A client numbers its requests within a lease. The answer is a record that hangs on the lease, so it is there on every
replica and after every restart, and goes with the lease. Of each lease the last `KEPT` numbers are kept. So whatever is
not known and too old, or of a lease that is over, is told apart from what was never there.
"""

from collections.abc import Callable, Iterable

import msgspec

from kvstore.api.commands import (
    AnswerNotKept,
    Busy,
    Idempotent,
    IdempotentResult,
    KeyExpired,
    KeyResult,
    KeyReused,
    LeaseFull,
    NoSuchLease,
    NotHeld,
    RepeatableCommand,
    TooManyKeys,
)
from kvstore.state_machine.lease_index import IndexedLease, answer_key
from kvstore.state_machine.view import Records

KEPT = 1000
MOST_KEPT_BYTES = 64 << 10
"""Of one answer. All replicas keep it, and send it to who lacks the state."""

_NOT_DONE = (TooManyKeys, NoSuchLease, LeaseFull, Busy, NotHeld)
"""To do it again does no harm, and it may succeed then."""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: bytes
    answer: KeyResult | AnswerNotKept


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


def run_idempotent(
    command: Idempotent, records: Records, do: Callable[[RepeatableCommand], KeyResult]
) -> IdempotentResult:
    """What `do` gives for the command in `command`, now or when it came for the first time."""
    lease = records.lease_index.leases.get(command.lease)
    if lease is None or command.number <= lease.top - KEPT:
        return KeyExpired()
    name = answer_key(command.lease, command.number)
    known = records.own(name)
    if known is not None:
        kept = _decode(known.value)
        return kept.answer if kept.fingerprint == command.fingerprint else KeyReused()
    result = do(command.command)
    if not isinstance(result, _NOT_DONE) and command.lease in records.lease_index.leases:  # it may have ended the lease
        top = lease.top
        records.put_own(name, _packed(command.fingerprint, result, records))
        for number in _outdated(lease, top):
            records.delete_own(answer_key(command.lease, number))
    return result


def _packed(fingerprint: bytes, result: KeyResult, records: Records) -> bytes:
    packed = _encode(_Kept(fingerprint, result))
    return packed if len(packed) <= MOST_KEPT_BYTES else _encode(_Kept(fingerprint, AnswerNotKept(records.revision)))


def _outdated(lease: IndexedLease, top: int) -> Iterable[int]:
    """The numbers that were kept while `top` was the highest one, and are not now."""
    upto, grown = lease.top - KEPT, lease.top - top
    if grown > KEPT:
        return sorted(number for number in lease.answers if number <= upto)
    return [number for number in range(upto - grown + 1, upto + 1) if number in lease.answers]
