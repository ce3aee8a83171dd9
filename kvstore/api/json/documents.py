"""The JSON documents of requests and responses, except transactions.

Each type is the only description of its document: the server encodes it, clients decode it, and the OpenAPI schema is
made from it. Bytes stand as text under a name, or, where they are not UTF-8, in base64 under that name with `_base64`
behind it. A client ignores fields that it does not know; a server refuses them.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kvstore.api.commands import KeyState, Record
from kvstore.api.errors import Outcome
from kvstore.api.limits import MAX_LOCK_WAIT_S, MAX_REVISION, MAX_TTL_S, MIN_TTL_S
from kvstore.api.membership import MemberRole

Count = Annotated[int, Meta(ge=0)]
Revision = Annotated[int, Meta(ge=1)]
Ttl = Annotated[float, Meta(ge=MIN_TTL_S, le=MAX_TTL_S)]
LeaseNumber = Annotated[int, Meta(ge=1, le=MAX_REVISION)]


def text_or_base64(content: bytes) -> tuple[str | UnsetType, bytes | UnsetType]:
    """Return `content` as text where it is UTF-8, and as the bytes to encode in base64 where it is not."""
    try:
        return content.decode(), UNSET
    except UnicodeDecodeError:
        return UNSET, content


def bytes_of(text: str | UnsetType, blob: bytes | UnsetType) -> bytes:
    """Return the bytes of a field and its `_base64` twin, empty if neither is there."""
    if isinstance(text, str):
        return text.encode()
    return blob if isinstance(blob, bytes) else b""


class ResponseDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the documents of responses."""


class RequestDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the documents of requests. A field that is not given is left out: no field may be null."""


class KeyDocument(ResponseDocument, frozen=True, kw_only=True):
    """A key, as `key` or `key_base64`."""

    key: str | UnsetType = UNSET
    key_base64: bytes | UnsetType = UNSET

    @property
    def key_bytes(self) -> bytes:
        """The key."""
        return bytes_of(self.key, self.key_base64)


class KeyPutDocument(KeyDocument, frozen=True, kw_only=True):
    """Result of a PUT of a key: the revision of the store and of the key, the number of PUTs since the key was created,
    and the lease that the key is attached to, if any."""

    revision: Revision
    version: Revision
    lease: Revision | UnsetType = UNSET


class KeyDeletedDocument(KeyDocument, frozen=True, kw_only=True):
    """Result of a DELETE of a key: the revision of the deletion, and the last revision and version of the key."""

    revision: Revision
    deleted_revision: Revision
    version: Revision


class KeyDeletionDocument(KeyDocument, frozen=True, kw_only=True):
    """Deletion of a key, as an event of a watch."""

    revision: Revision


class RangeDeletedDocument(ResponseDocument, frozen=True, kw_only=True):
    """Number of keys that were deleted, and the revision of the store. `more` is present if the request had a limit:
    true if it has left keys."""

    revision: Count
    deleted: Count
    more: bool | UnsetType = UNSET


class RecordDocument(KeyDocument, frozen=True, kw_only=True):
    """A key with its value (unless only keys were asked for), the revisions of its last PUT and of its creation, the
    number of PUTs since its creation, and the lease that it is attached to, if any."""

    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET
    revision: Revision
    create_revision: Revision
    version: Revision
    lease: Revision | UnsetType = UNSET

    @property
    def found(self) -> KeyState:
        """The same for the state machine's commands."""
        value = bytes_of(self.value, self.value_base64)
        record = Record(value, self.revision, self.create_revision, self.version)
        return KeyState(self.key_bytes, record, self.lease if isinstance(self.lease, int) else 0)


class RecordListDocument(ResponseDocument, frozen=True, kw_only=True):
    """Records in the order of their keys, and whether there are more."""

    records: list[RecordDocument]
    more: bool


class RecordPageDocument(ResponseDocument, frozen=True, kw_only=True):
    """Records in order, all as of one revision of the store. If there are more, `cursor` asks for the next page."""

    revision: Count
    records: list[RecordDocument]
    more: bool
    cursor: str | UnsetType = UNSET


class RecordStreamEndDocument(ResponseDocument, frozen=True, kw_only=True):
    """Last line of a list in NDJSON that is complete."""

    revision: Count
    count: Count
    more: bool


class RecordStreamErrorDocument(ResponseDocument, frozen=True, kw_only=True):
    """Last line of a list in NDJSON that could not be completed."""

    error: str
    count: Count


class WatchLostDocument(ResponseDocument, frozen=True, kw_only=True):
    """Last event of a watch whose client was too slow: revisions before `oldest_revision` were compacted."""

    oldest_revision: Count
    detail: str


class LeaseGrantedDocument(ResponseDocument, frozen=True, kw_only=True):
    """A lease whose time to live, in seconds, starts now."""

    id: Revision
    ttl_s: float


class LeaseDocument(LeaseGrantedDocument, frozen=True, kw_only=True):
    """A lease: the seconds that are left (null on a replica that is not the leader), the number of its keys, and these
    keys, if one lease was asked for."""

    left_s: float | None
    key_count: Count
    keys: list[KeyDocument] | UnsetType = UNSET


class LeasePageDocument(ResponseDocument, frozen=True, kw_only=True):
    """Leases without their keys, as of a revision of the store."""

    revision: Count
    leases: list[LeaseDocument]
    more: bool


class LockNameDocument(ResponseDocument, frozen=True, kw_only=True):
    """The name of a lock, as `name` or `name_base64`."""

    name: str | UnsetType = UNSET
    name_base64: bytes | UnsetType = UNSET


class LockAcquiredDocument(LockNameDocument, frozen=True, kw_only=True):
    """An entry in the queue of a lock; its lease holds the lock if `held` is true."""

    lease: Revision
    fence: Revision
    held: bool


class LockReleasedDocument(LockNameDocument, frozen=True, kw_only=True):
    """Release of a lock, or of a place in its queue."""

    revision: Revision


class QueueEntryDocument(ResponseDocument, frozen=True, kw_only=True):
    """A lease that holds a lock or waits for it, with its fencing token and value."""

    lease: Revision
    fence: Revision
    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET

    @property
    def value_bytes(self) -> bytes:
        """The value."""
        return bytes_of(self.value, self.value_base64)


class LockDocument(LockNameDocument, frozen=True, kw_only=True):
    """A lock as of a revision of the store: its holder, and the first of the queue behind it."""

    revision: Count
    holder: QueueEntryDocument | None
    waiting: list[QueueEntryDocument]
    more: bool


class ProblemDocument(ResponseDocument, frozen=True, kw_only=True):
    """An error, after RFC 9457. Programs compare `type`; `detail` says what to do next.

    `outcome`, of a request that might have changed something: `failed`, it had no effect; `unknown`, it may have been
    done. An error about a lock has its name and its `holder`; a lost fencing token has the `fence` that holds the lock
    now, 0 for none.

    A replica always sends the first four fields. Whatever else may answer a client need not (RFC 9457, 3.1).
    """

    type: str = "about:blank"
    title: str = ""
    status: Annotated[int, Meta(ge=400, le=599)] | UnsetType = UNSET
    detail: str = ""
    name: str | UnsetType = UNSET
    name_base64: bytes | UnsetType = UNSET
    holder: QueueEntryDocument | UnsetType = UNSET
    fence: Count | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET


class GrantRequest(RequestDocument, frozen=True, kw_only=True):
    """The body of `POST /leases`."""

    ttl_s: Ttl


class AcquireRequest(RequestDocument, frozen=True, kw_only=True):
    """The body of `POST /locks/{name}`: the lease that shall hold the lock, a new one by default; its time to live once
    it holds the lock, which a new lease needs; a value for those who read the lock; and the longest wait, in
    seconds."""

    lease: Annotated[int, Meta(ge=0, le=MAX_REVISION)] = 0
    ttl_s: Ttl | UnsetType = UNSET
    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET
    wait_s: Annotated[float, Meta(ge=0, le=MAX_LOCK_WAIT_S)] = 0


class AddMemberRequest(RequestDocument, frozen=True, kw_only=True):
    """The body of `POST /members`."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": "^[a-z0-9][a-z0-9._-]{0,31}$"})]
    address: Annotated[str, Meta(extra_json_schema={"pattern": "^[^ ]+:[0-9]{1,5}$"})]
    role: MemberRole = MemberRole.VOTER


class ReplaceMemberRequest(RequestDocument, frozen=True, kw_only=True):
    """The body of `POST /members/{name}/replace`."""

    address: str | UnsetType = UNSET


def key_document(key: bytes) -> KeyDocument:
    """Return the document of a key."""
    text, blob = text_or_base64(key)
    return KeyDocument(key=text, key_base64=blob)


def record_document(found: KeyState, *, keys_only: bool = False) -> RecordDocument | None:
    """Return the document of a key with its record, None if it is absent. `keys_only` leaves the value out."""
    record = found.record
    if record is None:
        return None
    key, key_base64 = text_or_base64(found.key)
    value, value_base64 = (UNSET, UNSET) if keys_only else text_or_base64(record.value)
    return RecordDocument(
        key=key,
        key_base64=key_base64,
        value=value,
        value_base64=value_base64,
        revision=record.revision,
        create_revision=record.create_revision,
        version=record.version,
        lease=found.lease or UNSET,
    )


def event_document(key: bytes, record: Record | None, revision: int) -> RecordDocument | KeyDeletionDocument:
    """Return the document of a change of `key` at `revision`; `record` is None for a deletion."""
    if record is not None:
        document = record_document(KeyState(key, record))
        if document is not None:
            return document
    text, blob = text_or_base64(key)
    return KeyDeletionDocument(key=text, key_base64=blob, revision=revision)
