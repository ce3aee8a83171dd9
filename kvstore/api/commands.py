"""The commands of log entries, their results, and the stored form of both.

A replica gathers the commands of its clients in batches. It packs a batch once. The batch is sent and stored as opaque
bytes, and unpacked once on each replica, when it is applied.

The log stores the tags of commands. The answers that are kept for idempotent commands store the tags and the fields of
results. A class that is renamed keeps its tag, so that every release reads every log alike.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from kvstore.api.key_range import Span
from kvstore.api.membership import Membership


class Put(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Command that sets `key` to `value`."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Command that deletes `key`."""

    key: bytes


class DeleteSpan(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Command that deletes the keys of `span` in one revision: the first `limit` keys, or all of them if that is 0."""

    span: Span
    limit: int = 0


class Get(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Operation of a transaction that reads `key`."""

    key: bytes


class List(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Operation of a transaction that reads the first `limit` keys of `span`."""

    span: Span
    limit: int


class LeasedPut(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Command that sets `key` to `value` and attaches the key to `lease`: the key is deleted when the lease ends. With
    `lease` 0 a new lease of `ttl_ms` is granted, which ends when the key is detached from it."""

    key: bytes
    value: bytes
    lease: int
    ttl_ms: int = 0


class Target(StrEnum):
    """Property of a record that a condition compares. Of an absent key, existence, version, revision and create
    revision are 0, and the value is NOT_EQUAL to every operand and neither EQUAL, LESS nor GREATER. The lease of a key
    without a lease is 0."""

    EXISTS = "exists"
    VALUE = "value"
    VERSION = "version"
    REVISION = "revision"
    CREATE_REVISION = "create_revision"
    LEASE = "lease"
    FENCING_TOKEN = "fence"  # noqa: S105 - the name of a JSON field, no secret
    """Fencing token of the holder of the lock whose name is the key, 0 for a free lock."""


class Relation(StrEnum):
    """Relation between the property of the record and the operand."""

    EQUAL = "eq"
    NOT_EQUAL = "ne"
    LESS = "lt"
    GREATER = "gt"


class Compare(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A condition on a key or on all keys of a span. `operand` is bytes for a value, 1 or 0 for existence, and a number
    for the other targets.

    A condition on a span holds if it holds for each present key. Existence of a span is 1 if any key is present.
    """

    on: bytes | Span
    target: Target
    relation: Relation
    operand: int | bytes


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Command that does the operations of `then` if all `compares` hold, otherwise those of `otherwise`, in one
    revision. Each operation sees the effects of the operations before it."""

    compares: list[Compare]
    then: "list[Operation]"
    otherwise: "list[Operation]"


class Reconfigure(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Command that makes `membership` the membership of the cluster."""

    membership: Membership


class GrantLease(msgspec.Struct, frozen=True, array_like=True, tag="Grant", gc=False):
    """Command that grants a lease with a time to live of `ttl_ms`."""

    ttl_ms: int


class KeepLeaseAlive(msgspec.Struct, frozen=True, array_like=True, tag="KeepAlive", gc=False):
    """Command that restarts the time to live of `lease`, which becomes `ttl_ms` unless that is 0."""

    lease: int
    ttl_ms: int = 0


class RevokeLease(msgspec.Struct, frozen=True, array_like=True, tag="Revoke", gc=False):
    """Command that ends `lease`, deletes the keys that are attached to it, and releases its locks."""

    lease: int


class RecordLeader(msgspec.Struct, frozen=True, array_like=True, tag="Lead", gc=False):
    """Command that records `leader`, a ballot as `round.node`, as the leader that decides when leases expire. It has no
    effect unless the record was written exactly `replaced` times before."""

    leader: str
    replaced: int


class ExpireLease(msgspec.Struct, frozen=True, array_like=True, tag="Expire", gc=False):
    """Command that ends `lease`, whose time to live is over by the clock of `leader`. It has no effect if another
    leader is recorded, or if the lease was kept alive since it had this `version`."""

    lease: int
    version: int
    leader: str


class AcquireLock(msgspec.Struct, frozen=True, array_like=True, tag="Acquire", gc=False):
    """Command that acquires the lock `name` for `lease`; with `queue`, it enters the queue for the lock if another
    lease holds it. With `lease` 0 a new lease of `ttl_ms` is granted. `value` describes the holder to other clients."""

    name: bytes
    lease: int
    ttl_ms: int
    value: bytes
    queue: bool


class ReleaseLock(msgspec.Struct, frozen=True, array_like=True, tag="Release", gc=False):
    """Command that releases the lock `name`, if `lease` holds it, or removes `lease` from the queue for the lock."""

    name: bytes
    lease: int


class Idempotent(msgspec.Struct, frozen=True, array_like=True, tag="Once"):
    """Command that does `command` once: if a command with this `number` of `lease` was done before, its result is
    returned again. `fingerprint` is a hash of the request, which detects a different request with the same number."""

    lease: int
    number: int
    fingerprint: bytes
    command: "RepeatableCommand"


Operation = Put | LeasedPut | Delete | DeleteSpan | Get | List | Transact
LeaseCommand = GrantLease | KeepLeaseAlive | RevokeLease | RecordLeader | ExpireLease | AcquireLock | ReleaseLock
RepeatableCommand = (
    Put | LeasedPut | Delete | DeleteSpan | Transact | GrantLease | RevokeLease | AcquireLock | ReleaseLock
)
KeyCommand = RepeatableCommand | KeepLeaseAlive | RecordLeader | ExpireLease | Idempotent
Command = KeyCommand | Reconfigure

MAX_KEYS = 100_000
"""Limit of the keys that one command may read or change. No other command is applied meanwhile, and a key takes a
microsecond or two."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """The value of a key. `revision` is that of the last put, `create_revision` that of the put that created the key,
    `version` the number of puts since the key was created, and `sub_revision` the index of the last put among the
    changes of its revision, from 0."""

    value: bytes
    revision: int
    create_revision: int
    version: int
    sub_revision: int = msgspec.field(default=0, name="number")


class PutResult(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The key was put. `version` counts its puts since it was created; 1 means that it is new."""

    revision: int
    version: int


class DeleteResult(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The key was deleted at `revision`. It had `version`, and was last put at `deleted_revision`."""

    revision: int
    version: int
    deleted_revision: int


class NotFound(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The key to delete is absent. `revision` is that of the store."""

    revision: int


class DeleteSpanResult(msgspec.Struct, frozen=True, tag="SpanDeleted", gc=False):
    """The keys of the span were deleted at `revision`. `deleted` is their number; if it is 0, `revision` is that of the
    store. `more` is True if the limit of the command has left keys of the span."""

    revision: int
    deleted: int
    more: bool = False


class KeyState(msgspec.Struct, frozen=True, tag="Found"):
    """The state of a key: its record, None if the key is absent, and the lease that it is attached to, 0 for none."""

    key: bytes
    record: Record | None
    lease: int = 0


class ListedKeys(msgspec.Struct, frozen=True, tag="Listed"):
    """The first keys of a span. `more` is True if the span has further keys."""

    found: list[KeyState]
    more: bool


class TransactResult(msgspec.Struct, frozen=True, tag="Transacted"):
    """The transaction was done. `succeeded` is True if all compares held, and `results` are those of the operations.
    `revision` is that of the changes; without changes it is that of the store."""

    succeeded: bool
    revision: int
    results: "list[OperationResult]"


class TooManyKeys(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: the command might read or change more than MAX_KEYS keys."""


class LeaseGranted(msgspec.Struct, frozen=True, tag="Granted", gc=False):
    """The lease was granted or kept alive, with a time to live of `ttl_ms`."""

    lease: int
    ttl_ms: int


class LeaseEnded(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The lease ended at `revision`. `deleted` is the number of keys that were deleted with it."""

    revision: int
    deleted: int


class LeaseNotFound(msgspec.Struct, frozen=True, tag="NoSuchLease", gc=False):
    """Nothing was done: the lease has ended, or never existed."""

    lease: int


class LeaseFull(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: the lease has as many keys or locks as may be attached to it."""

    lease: int


class AcquireResult(msgspec.Struct, frozen=True, tag="Placed", gc=False):
    """`lease` holds the lock if `held`, otherwise it waits in the queue for the lock. The fencing token of a holder is
    greater than the tokens of all earlier holders."""

    lease: int
    fencing_token: int = msgspec.field(name="fence")
    held: bool


class LockHeld(msgspec.Struct, frozen=True, tag="Busy", gc=False):
    """Nothing was done: another `lease` holds the lock."""

    lease: int
    fencing_token: int = msgspec.field(name="fence")


class LockReleased(msgspec.Struct, frozen=True, tag="Released", gc=False):
    """The lock was released, or the queue left, at `revision`."""

    revision: int


class LockNotHeld(msgspec.Struct, frozen=True, tag="NotHeld", gc=False):
    """Nothing was done: the lease neither holds the lock nor waits for it."""


class LeaderResult(msgspec.Struct, frozen=True, tag="Said", gc=False):
    """The result of a RecordLeader or ExpireLease: `done` is False if the command had no effect."""

    done: bool


class AnswerExpired(msgspec.Struct, frozen=True, tag="KeyExpired", gc=False):
    """Nothing was done: the lease has ended, or the number is too old to know whether the command was done before."""


class IdempotencyKeyReused(msgspec.Struct, frozen=True, tag="KeyReused", gc=False):
    """Nothing was done: a different request had the same number."""


class AnswerNotKept(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The command was done before, at `revision`. Its result was too large to be kept."""

    revision: int


class Reconfigured(msgspec.Struct, frozen=True, gc=False):
    """`membership` decides the slots from `first` on."""

    membership: Membership
    first: int


class NotReconfigured(msgspec.Struct, frozen=True, gc=False):
    """The membership did not change. `why` is a message for the operator."""

    why: str


OperationResult = PutResult | DeleteResult | NotFound | DeleteSpanResult | KeyState | ListedKeys | TransactResult
LeaseResult = (
    LeaseGranted
    | LeaseEnded
    | LeaseNotFound
    | LeaseFull
    | AcquireResult
    | LockHeld
    | LockReleased
    | LockNotHeld
    | LeaderResult
)
KeyResult = OperationResult | TooManyKeys | LeaseResult
IdempotentResult = KeyResult | AnswerExpired | IdempotencyKeyReused | AnswerNotKept
Result = IdempotentResult | Reconfigured | NotReconfigured


class CommandBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands that one replica took from its clients. A batch is applied once, however often it is ordered.

    (`origin`, `boot`, `sequence`) is the request id: the node with its incarnation, the number of its start, and a
    number that grows by one with each batch. The origin no longer repeats batches with a sequence below
    `settled_below`.
    """

    origin: str
    boot: Annotated[int, msgspec.Meta(ge=1)]
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    settled_below: Annotated[int, msgspec.Meta(ge=1)]
    commands: list[Command]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CommandBatch)


def pack_batch(batch: CommandBatch) -> bytes:
    """Return the stored form of a batch."""
    return _encoder.encode(batch)


def unpack_batch(data: bytes) -> CommandBatch:
    """Return the batch in `data`. Raises msgspec.DecodeError for other bytes, which no replica proposes."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:  # msgspec raises it for a malformed string
        raise msgspec.DecodeError(f"malformed name: {error}") from error
