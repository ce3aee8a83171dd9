"""The body of `POST /txn`.

{"compare": [{"key": "a", "revision": 7}, {"prefix": "b/", "exists": false}],
 "then": [{"put": {"key": "a", "value": "1", "lease": 5}}, {"delete": {"prefix": "c/"}}],
 "else": [{"get": {"key": "a"}}, {"list": {"prefix": "c/", "limit": 10}}, {"txn": {...}}]}
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kvstore.api.json.documents import LeaseNumber, RequestDocument

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A number to compare a counter with: no greater number fits into a command."""


class KeyRequest(RequestDocument, frozen=True, kw_only=True):
    """A key."""

    key: str | UnsetType = UNSET
    key_base64: bytes | UnsetType = UNSET


class KeysRequest(KeyRequest, frozen=True, kw_only=True):
    """A key; or the keys with a prefix; or those from `start` on and before `end`."""

    prefix: str | UnsetType = UNSET
    prefix_base64: bytes | UnsetType = UNSET
    start: str | UnsetType = UNSET
    start_base64: bytes | UnsetType = UNSET
    end: str | UnsetType = UNSET
    end_base64: bytes | UnsetType = UNSET


class PutRequest(KeyRequest, frozen=True, kw_only=True):
    """A value for a key, and the lease that the key is attached to."""

    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET
    lease: LeaseNumber | UnsetType = UNSET


class ListRequest(KeysRequest, frozen=True, kw_only=True):
    """The first keys of a range."""

    limit: int = 100


class NumberRelations(RequestDocument, frozen=True, kw_only=True):
    """Numbers that a number is equal to, not equal to, less than, greater than."""

    eq: Number | UnsetType = UNSET
    ne: Number | UnsetType = UNSET
    lt: Number | UnsetType = UNSET
    gt: Number | UnsetType = UNSET


class TextRelations(RequestDocument, frozen=True, kw_only=True):
    """Texts that a value is equal to, not equal to, less than, greater than."""

    eq: str | UnsetType = UNSET
    ne: str | UnsetType = UNSET
    lt: str | UnsetType = UNSET
    gt: str | UnsetType = UNSET


class BytesRelations(RequestDocument, frozen=True, kw_only=True):
    """The same of bytes in base64."""

    eq: bytes | UnsetType = UNSET
    ne: bytes | UnsetType = UNSET
    lt: bytes | UnsetType = UNSET
    gt: bytes | UnsetType = UNSET


class CompareRequest(KeysRequest, frozen=True, kw_only=True):
    """Conditions on a key or on every key of a range; or that a fencing token holds a lock."""

    exists: bool | UnsetType = UNSET
    value: str | TextRelations | UnsetType = UNSET
    value_base64: bytes | BytesRelations | UnsetType = UNSET
    version: Number | NumberRelations | UnsetType = UNSET
    revision: Number | NumberRelations | UnsetType = UNSET
    create_revision: Number | NumberRelations | UnsetType = UNSET
    lease: Number | NumberRelations | UnsetType = UNSET
    lock: str | UnsetType = UNSET
    lock_base64: bytes | UnsetType = UNSET
    fence: Number | UnsetType = UNSET


class OperationRequest(RequestDocument, frozen=True, kw_only=True):
    """One of these operations."""

    put: PutRequest | UnsetType = UNSET
    get: KeyRequest | UnsetType = UNSET
    delete: KeysRequest | UnsetType = UNSET
    list: ListRequest | UnsetType = UNSET
    txn: "TransactionRequest | UnsetType" = UNSET


class TransactionRequest(RequestDocument, frozen=True, kw_only=True, rename={"otherwise": "else"}):
    """A transaction: if all compares hold, the operations of `then`, otherwise those of `else`."""

    compare: list[CompareRequest] = msgspec.field(default_factory=list)
    then: list[OperationRequest] = msgspec.field(default_factory=list)
    otherwise: list[OperationRequest] = msgspec.field(default_factory=list)
