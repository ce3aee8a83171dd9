"""The response to `POST /txn`."""

from typing import assert_never

from msgspec import UNSET, UnsetType

from kvstore.api.commands import (
    DeleteResult,
    DeleteSpanResult,
    KeyState,
    ListedKeys,
    NotFound,
    OperationResult,
    PutResult,
    TransactResult,
)
from kvstore.api.json.documents import (
    Count,
    RecordDocument,
    RecordListDocument,
    ResponseDocument,
    Revision,
    record_document,
)


class PutResultDocument(ResponseDocument, frozen=True, kw_only=True):
    """Result of a put: the revision of the store and of the key, and the number of puts since the key was created."""

    revision: Revision
    version: Revision


class DeleteResultDocument(ResponseDocument, frozen=True, kw_only=True):
    """Result of a delete: the number of deleted keys; of a single key that was there also its last revision and
    version."""

    revision: Count
    deleted: Count
    deleted_revision: Revision | UnsetType = UNSET
    version: Revision | UnsetType = UNSET


class OperationResultDocument(ResponseDocument, frozen=True, kw_only=True):
    """Result of one operation, under its name; of a get, null for an absent key."""

    put: PutResultDocument | UnsetType = UNSET
    get: RecordDocument | UnsetType | None = UNSET
    delete: DeleteResultDocument | UnsetType = UNSET
    list: RecordListDocument | UnsetType = UNSET
    txn: "TransactionResultDocument | UnsetType" = UNSET


class TransactionResultDocument(ResponseDocument, frozen=True, kw_only=True):
    """Result of a transaction: whether all compares held, the revision of the store after it, and the results of the
    operations of `then` or `else`."""

    succeeded: bool
    revision: Count
    results: list[OperationResultDocument]


def transaction_document(result: TransactResult) -> TransactionResultDocument:
    """Return the document of the result of a transaction."""
    return TransactionResultDocument(
        succeeded=result.succeeded,
        revision=result.revision,
        results=[_document(each) for each in result.results],
    )


def _document(result: OperationResult) -> OperationResultDocument:
    match result:
        case PutResult(revision=revision, version=version):
            return OperationResultDocument(put=PutResultDocument(revision=revision, version=version))
        case DeleteResult(revision=revision, version=version, deleted_revision=deleted):
            delete = DeleteResultDocument(revision=revision, deleted=1, deleted_revision=deleted, version=version)
            return OperationResultDocument(delete=delete)
        case NotFound(revision=revision):
            return OperationResultDocument(delete=DeleteResultDocument(revision=revision, deleted=0))
        case DeleteSpanResult(revision=revision, deleted=deleted):
            return OperationResultDocument(delete=DeleteResultDocument(revision=revision, deleted=deleted))
        case KeyState():
            return OperationResultDocument(get=record_document(result))
        case ListedKeys(found=found, more=more):
            records = [document for each in found if (document := record_document(each)) is not None]
            return OperationResultDocument(list=RecordListDocument(records=records, more=more))
        case TransactResult():
            return OperationResultDocument(txn=transaction_document(result))
        case _:
            assert_never(result)
