"""What a log entry can ask of the state machine, what it answers, and the binary form of both.

A replica gathers the commands of its clients in batches. A batch is packed once, where it was made; it travels and is
stored as opaque bytes and is unpacked once on each replica, when it is applied.

The tag of a command is stored in the log, and the tag of a result in the answers that are kept for idempotent commands:
a class that is renamed keeps its tag, so that every release reads every log alike.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from kvstore.api.key_range import Span
from kvstore.api.membership import Membership


class Put(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Set `key` to `value`."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Remove `key`."""

    key: bytes


class DeleteSpan(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Remove all keys of `span`, in one revision."""

    span: Span


class Get(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Look `key` up, in a transaction."""

    key: bytes


class List(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The first `limit` keys of `span` with what they hold, in a transaction."""

    span: Span
    limit: int


class LeasedPut(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Set `key` to `value`, for as long as `lease` lives; 0 for a lease of its own, of `ttl_ms`, which ends with it."""

    key: bytes
    value: bytes
    lease: int
    ttl_ms: int = 0


class Target(StrEnum):
    """What of a record is compared. An absent key has revision, create revision and version 0 and does not exist; its
    value is not equal to any, and neither less nor greater. A key without a lease has lease 0."""

    EXISTS = "exists"
    VALUE = "value"
    VERSION = "version"
    REVISION = "revision"
    CREATE_REVISION = "create_revision"
    LEASE = "lease"
    FENCE = "fence"
    """Of the holder of the lock that is named like the key; 0 for a free one."""


class Relation(StrEnum):
    """How the record must be to the operand."""

    EQUAL = "eq"
    NOT_EQUAL = "ne"
    LESS = "lt"
    GREATER = "gt"


class Compare(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A condition on a key or on every key of a span. `operand` is bytes for a value, 1 or 0 for existence.

    Over a span it holds when it holds for each key that is there; EXISTS asks whether there is any.
    """

    on: bytes | Span
    target: Target
    relation: Relation
    operand: int | bytes


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """If all `compares` hold do `then`, else `otherwise`: in order, each seeing what those before it did, and all in
    one revision."""

    compares: list[Compare]
    then: "list[Operation]"
    otherwise: "list[Operation]"


class Reconfigure(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Make `membership` the members of the cluster."""

    membership: Membership


class Grant(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """A lease that lives for `ttl_ms`, and again for as long with each KeepAlive."""

    ttl_ms: int


class KeepAlive(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """`lease` lives for its whole length from now on."""

    lease: int


class Revoke(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """End `lease`, and all that hangs on it."""

    lease: int


class Lead(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """From now on `leader`, a ballot as `round.node`, says which leases are over; if the one before it is the
    `replaced`th."""

    leader: str
    replaced: int


class Expire(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """`lease` is over, says `leader`, who has seen it kept alive until it was of this `version`. Nothing happens
    when another one says that now, or it was kept alive since."""

    lease: int
    version: int
    leader: str


class Acquire(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Take the lock `name` for `lease`, or with `queue` the next place in the queue for it. 0 for a lease of its own,
    of `ttl_ms`. `value` is for whoever looks who holds it."""

    name: bytes
    lease: int
    ttl_ms: int
    value: bytes
    queue: bool


class Release(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Give the lock `name` up, or the place in the queue for it, that `lease` has."""

    name: bytes
    lease: int


class Idempotent(msgspec.Struct, frozen=True, array_like=True, tag="Once"):
    """Do `command`, unless that was done under this `number` of `lease` before: then give the same answer again.
    `fingerprint` is of the request, to tell another one with the same number."""

    lease: int
    number: int
    fingerprint: bytes
    command: "RepeatableCommand"


Operation = Put | LeasedPut | Delete | DeleteSpan | Get | List | Transact
LeaseCommand = Grant | KeepAlive | Revoke | Lead | Expire | Acquire | Release
RepeatableCommand = Put | LeasedPut | Delete | DeleteSpan | Transact | Grant | Revoke | Acquire | Release
KeyCommand = RepeatableCommand | KeepAlive | Lead | Expire | Idempotent
Command = KeyCommand | Reconfigure

MOST_AT_ONCE = 100_000
"""Keys that one command may look at or change: nothing else is applied meanwhile, and each takes a few microseconds."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a key holds. `revision`: of the store when it was last put; `create_revision`: when it was created;
    `version`: how often it was put since then, from 1; `number`: which change of its revision, from 0."""

    value: bytes
    revision: int
    create_revision: int
    version: int
    number: int = 0


class PutResult(msgspec.Struct, frozen=True, tag=True, gc=False):
    """`version` counts the puts of this key since it was created, from 1; 1 therefore means: new."""

    revision: int
    version: int


class DeleteResult(msgspec.Struct, frozen=True, tag=True, gc=False):
    """`revision` of the deletion; what was deleted had `version` and had last been written at `deleted_revision`."""

    revision: int
    version: int
    deleted_revision: int


class NotFound(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The key to delete is absent; `revision` is the store's present one."""

    revision: int


class SpanDeleted(msgspec.Struct, frozen=True, tag=True, gc=False):
    """So many keys were deleted, at `revision`; when there were none, that is the store's present one."""

    revision: int
    deleted: int


class Found(msgspec.Struct, frozen=True, tag=True):
    """What `key` holds, None when it is absent, and the lease it has now, 0 for none."""

    key: bytes
    record: Record | None
    lease: int = 0


class Listed(msgspec.Struct, frozen=True, tag=True):
    """The first keys of a span; `more`: there are others."""

    found: list[Found]
    more: bool


class Transacted(msgspec.Struct, frozen=True, tag=True):
    """Whether the compares held, and what the operations gave. `revision` is that of the changes; without any it is
    the store's present one."""

    succeeded: bool
    revision: int
    results: "list[OperationResult]"


class TooManyKeys(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: it might have looked at more than MOST_AT_ONCE keys."""


class Granted(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The lease is there, and lives for `ttl_ms`."""

    lease: int
    ttl_ms: int


class LeaseEnded(msgspec.Struct, frozen=True, tag=True, gc=False):
    """So many keys went with it, at `revision`."""

    revision: int
    deleted: int


class NoSuchLease(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: the lease is over, or never was."""

    lease: int


class LeaseFull(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: as much hangs on the lease as may."""

    lease: int


class Placed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """`lease` has the lock if it is `held`, else a place in the queue for it. `fence` grows from one holder to the
    next."""

    lease: int
    fence: int
    held: bool


class Busy(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: `lease` holds the lock, with `fence`."""

    lease: int
    fence: int


class Released(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The lock, or the place, is given up since `revision`."""

    revision: int


class NotHeld(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: the lease has no place there."""


class Said(msgspec.Struct, frozen=True, tag=True, gc=False):
    """What became of what a leader says of itself and of leases."""

    done: bool


class KeyExpired(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done now: the lease is over, or the number too old, so nobody knows whether it was done before."""


class KeyReused(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing was done: another request had this number."""


class AnswerNotKept(msgspec.Struct, frozen=True, tag=True, gc=False):
    """It was done before, at `revision`; what it gave was too long to be kept."""

    revision: int


class Reconfigured(msgspec.Struct, frozen=True, gc=False):
    """The members are those of `membership` from slot `first` on."""

    membership: Membership
    first: int


class NotReconfigured(msgspec.Struct, frozen=True, gc=False):
    """The members stay as they are; `why` is for people."""

    why: str


OperationResult = PutResult | DeleteResult | NotFound | SpanDeleted | Found | Listed | Transacted
LeaseResult = Granted | LeaseEnded | NoSuchLease | LeaseFull | Placed | Busy | Released | NotHeld | Said
KeyResult = OperationResult | TooManyKeys | LeaseResult
IdempotentResult = KeyResult | KeyExpired | KeyReused | AnswerNotKept
Result = IdempotentResult | Reconfigured | NotReconfigured


class CommandBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands that one replica took from its clients, applied once however often they are ordered.

    (`origin`, `boot`, `sequence`) is the request id: the node and its incarnation, its start count, and a number that
    grows by one for each batch. `settled_below`: the origin will never repeat a batch below this number, its fate may
    be forgotten.
    """

    origin: str
    boot: Annotated[int, msgspec.Meta(ge=1)]
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    settled_below: Annotated[int, msgspec.Meta(ge=1)]
    commands: list[Command]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CommandBatch)


def pack_batch(batch: CommandBatch) -> bytes:
    """Bytes of a batch."""
    return _encoder.encode(batch)


def unpack_batch(data: bytes) -> CommandBatch:
    """The batch in `data`. Raises msgspec.DecodeError on anything else: such bytes were never proposed by us."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:  # msgspec's own errors do not cover it
        raise msgspec.DecodeError(f"malformed name: {error}") from error
