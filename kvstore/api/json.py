"""Keys, values and results as JSON: text where the bytes are UTF-8, else base64 under another name."""

from base64 import b64encode
from typing import Any, assert_never

from kvstore.api.commands import (
    DeleteResult,
    DeleteSpanResult,
    KeyState,
    ListedKeys,
    NotFound,
    OperationResult,
    PutResult,
    Record,
    TransactResult,
)

Document = dict[str, Any]


def named(key: bytes) -> Document:
    """`{"key": ...}`, or `{"key_base64": ...}`."""
    return text_or_base64("key", key)


def record_document(found: KeyState, *, keys_only: bool = False) -> Document | None:
    """A key with what it holds, None when it is absent. `keys_only`: without the value."""
    record = found.record
    if record is None:
        return None
    return {
        **named(found.key),
        **({} if keys_only else text_or_base64("value", record.value)),
        "revision": record.revision,
        "create_revision": record.create_revision,
        "version": record.version,
        **({"lease": found.lease} if found.lease else {}),
    }


def event_document(key: bytes, record: Record | None, revision: int) -> Document:
    """What `key` holds since `revision`; nothing but that when it was deleted."""
    return record_document(KeyState(key, record)) or {**named(key), "revision": revision}


def transacted_document(result: TransactResult) -> Document:
    """The answer to a transaction: whether its conditions held, and what each operation gave, under its name."""
    return {
        "succeeded": result.succeeded,
        "revision": result.revision,
        "results": [_result(each) for each in result.results],
    }


def _result(result: OperationResult) -> Document:
    match result:
        case PutResult(revision=revision, version=version):
            return {"put": {"revision": revision, "version": version}}
        case DeleteResult(revision=revision, version=version, deleted_revision=deleted):
            return {"delete": {"revision": revision, "deleted": 1, "deleted_revision": deleted, "version": version}}
        case NotFound(revision=revision):
            return {"delete": {"revision": revision, "deleted": 0}}
        case DeleteSpanResult(revision=revision, deleted=deleted):
            return {"delete": {"revision": revision, "deleted": deleted}}
        case KeyState():
            return {"get": record_document(result)}
        case ListedKeys():
            return {"list": listed_document(result)}
        case TransactResult():
            return {"txn": transacted_document(result)}
        case _:
            assert_never(result)


def listed_document(result: ListedKeys) -> Document:
    """The records of a span, and whether there are more."""
    return {"records": [record_document(found) for found in result.found], "more": result.more}


def text_or_base64(name: str, content: bytes) -> Document:
    """`{name: ...}`, or `{name_base64: ...}`."""
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(content).decode()}
