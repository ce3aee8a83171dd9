"""The documents that answers hold, as types: their schemas are made from these, and answers are held against those.

Bytes stand as text under a name, or in base64 under that name with `_base64` behind it where they are no UTF-8.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kvstore.api.errors import Outcome

Count = Annotated[int, msgspec.Meta(ge=0)]
Revision = Annotated[int, msgspec.Meta(ge=1)]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an answer in JSON holds."""


class Named(Document, frozen=True, kw_only=True):
    """Something of a key: `key`, or `key_base64`."""

    key: str | UnsetType = UNSET
    key_base64: bytes | UnsetType = UNSET


class PutDone(Named, frozen=True, kw_only=True):
    """A PUT of a key. `revision`: of the store, and of the key. `version`: how often it was put since it is there.
    `lease`: what it hangs on, if anything."""

    revision: Revision
    version: Revision
    lease: Revision | UnsetType = UNSET


class Deleted(Named, frozen=True, kw_only=True):
    """A DELETE of a key, which was at `deleted_revision`, put `version` times."""

    revision: Revision
    deleted_revision: Revision
    version: Revision


class KeysDeleted(Document, frozen=True, kw_only=True):
    """A DELETE of many keys: how many there were, and the revision of the store."""

    revision: Count
    deleted: Count


class Record(Named, frozen=True, kw_only=True):
    """A key with its value, unless only keys were asked for; the revisions that created it and changed it last; how
    often it was put since it is there; the lease that it hangs on, if any."""

    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET
    revision: Revision
    create_revision: Revision
    version: Revision
    lease: Revision | UnsetType = UNSET


class Page(Document, frozen=True, kw_only=True):
    """Records in order, all as of one revision of the store. With `more` there are others: ask with `cursor`."""

    revision: Count
    records: list[Record]
    more: bool
    cursor: str | UnsetType = UNSET


class PutResult(Document, frozen=True, kw_only=True):
    """What a put gave."""

    revision: Revision
    version: Revision


class DeleteResult(Document, frozen=True, kw_only=True):
    """What a delete gave: how many keys there were; of a single key that was there also what DELETE tells."""

    revision: Count
    deleted: Count
    deleted_revision: Revision | UnsetType = UNSET
    version: Revision | UnsetType = UNSET


class ListResult(Document, frozen=True, kw_only=True):
    """What a list gave."""

    records: list[Record]
    more: bool


class Result(Document, frozen=True, kw_only=True):
    """What one operation of a transaction gave, under its name; a get null for an absent key."""

    put: PutResult | UnsetType = UNSET
    get: Record | UnsetType | None = UNSET
    delete: DeleteResult | UnsetType = UNSET
    list: ListResult | UnsetType = UNSET
    txn: "Transacted | UnsetType" = UNSET


class Transacted(Document, frozen=True, kw_only=True):
    """A transaction: whether all compares held, the revision of the store behind it, and what each operation of the
    list that was done gave."""

    succeeded: bool
    revision: Count
    results: list[Result]


class Granted(Document, frozen=True, kw_only=True):
    """A lease of so many seconds, which begin now."""

    id: Revision
    ttl_s: float


class Lease(Granted, frozen=True, kw_only=True):
    """A lease: the seconds that are left of it, on the leader; how many keys hang on it, and which."""

    left_s: float | None
    key_count: Count
    keys: list[Named] | UnsetType = UNSET


class Leases(Document, frozen=True, kw_only=True):
    """Leases, without their keys, as of a revision of the store."""

    revision: Count
    leases: list[Lease]
    more: bool


class OfLock(Document, frozen=True, kw_only=True):
    """Something of a lock: `name`, or `name_base64`."""

    name: str | UnsetType = UNSET
    name_base64: bytes | UnsetType = UNSET


class Acquired(OfLock, frozen=True, kw_only=True):
    """A place in the queue of a lock, at its head where it is `held`."""

    lease: Revision
    fence: Revision
    held: bool


class Released(OfLock, frozen=True, kw_only=True):
    """A place in the queue of a lock was given up."""

    revision: Revision


class Place(Document, frozen=True, kw_only=True):
    """Who holds a lock, or waits for it."""

    lease: Revision
    fence: Revision
    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET


class Lock(OfLock, frozen=True, kw_only=True):
    """A lock, as of a revision of the store; `more`: others wait behind those."""

    revision: Count
    holder: Place | None
    waiting: list[Place]
    more: bool


class Problem(OfLock, frozen=True, kw_only=True):
    """An answer that is not the one asked for, after RFC 9457. Programs compare `type`; `detail` says what to do next.
    `outcome`, of what could have changed something: `failed`, it left no trace; `unknown`, it may have been done.

    Of a lock: its name and its `holder`; or the `fence` that holds it, 0 for none."""

    type: str
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    detail: str
    outcome: Outcome | UnsetType = UNSET
    holder: Place | UnsetType = UNSET
    fence: Count | UnsetType = UNSET
