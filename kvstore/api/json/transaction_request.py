"""The body of `POST /txn`.

{"compare": [{"key": "a", "revision": 7}, {"prefix": "b/", "exists": false}],
 "then": [{"put": {"key": "a", "value": "1", "lease": 5}}, {"delete": {"prefix": "c/"}}],
 "else": [{"get": {"key": "a"}}, {"list": {"prefix": "c/", "limit": 10}}, {"txn": {...}}]}
"""

from typing import Annotated

import msgspec

from kvstore.api.json.documents import LeaseNumber, RequestDocument

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A number to compare a counter with: no greater number fits into a command."""


class KeyRequest(RequestDocument, frozen=True, kw_only=True):
    """A key."""

    key: str | None = None
    key_base64: bytes | None = None


class KeysRequest(KeyRequest, frozen=True, kw_only=True):
    """A key; or the keys with a prefix; or those from `start` on and before `end`."""

    prefix: str | None = None
    prefix_base64: bytes | None = None
    start: str | None = None
    start_base64: bytes | None = None
    end: str | None = None
    end_base64: bytes | None = None


class PutRequest(KeyRequest, frozen=True, kw_only=True):
    """A value for a key, and the lease that the key is attached to."""

    value: str | None = None
    value_base64: bytes | None = None
    lease: LeaseNumber | None = None


class ListRequest(KeysRequest, frozen=True, kw_only=True):
    """The first keys of a range."""

    limit: int = 100


class NumberRelations(RequestDocument, frozen=True, kw_only=True):
    """Numbers that a number is equal to, not equal to, less than, greater than."""

    eq: Number | None = None
    ne: Number | None = None
    lt: Number | None = None
    gt: Number | None = None


class TextRelations(RequestDocument, frozen=True, kw_only=True):
    """Texts that a value is equal to, not equal to, less than, greater than."""

    eq: str | None = None
    ne: str | None = None
    lt: str | None = None
    gt: str | None = None


class BytesRelations(RequestDocument, frozen=True, kw_only=True):
    """The same of bytes in base64."""

    eq: bytes | None = None
    ne: bytes | None = None
    lt: bytes | None = None
    gt: bytes | None = None


class CompareRequest(KeysRequest, frozen=True, kw_only=True):
    """Conditions on a key or on every key of a range; or that a fencing token holds a lock."""

    exists: bool | None = None
    value: str | TextRelations | None = None
    value_base64: bytes | BytesRelations | None = None
    version: Number | NumberRelations | None = None
    revision: Number | NumberRelations | None = None
    create_revision: Number | NumberRelations | None = None
    lease: Number | NumberRelations | None = None
    lock: str | None = None
    lock_base64: bytes | None = None
    fence: Number | None = None


class OperationRequest(RequestDocument, frozen=True, kw_only=True):
    """One of these operations."""

    put: PutRequest | None = None
    get: KeyRequest | None = None
    delete: KeysRequest | None = None
    list: ListRequest | None = None
    txn: "TransactionRequest | None" = None


class TransactionRequest(RequestDocument, frozen=True, kw_only=True, rename={"otherwise": "else"}):
    """A transaction: if all compares hold, the operations of `then`, otherwise those of `else`."""

    compare: list[CompareRequest] = msgspec.field(default_factory=list)
    then: list[OperationRequest] = msgspec.field(default_factory=list)
    otherwise: list[OperationRequest] = msgspec.field(default_factory=list)
