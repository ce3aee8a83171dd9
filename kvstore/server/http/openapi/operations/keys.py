"""`/kv/`: a key, or many."""

from kvstore.api.json.documents import KeyDeletedDocument, KeyPutDocument, RangeDeletedDocument, RecordPageDocument
from kvstore.server.http.lists import NDJSON
from kvstore.server.http.openapi.description import (
    ASKING,
    BINARY,
    BYTES,
    COUNT,
    JSON,
    ONCE,
    READING,
    REVISION,
    SENDING,
    STALENESS,
    TAG_OF_KEY,
    TEXT,
    ApiOperation,
    ApiResponse,
    Body,
    Header,
    Tag,
)
from kvstore.server.http.openapi.parameters import (
    AS_OF,
    CONSISTENCY,
    CURSOR,
    DELETE_LIMIT,
    GUARD,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    KEY_IN_PATH,
    KEYS_ONLY,
    LEASE,
    LIMIT,
    ORDER,
    SPAN,
    TTL,
)
from kvstore.server.http.problems import (
    DISK_FULL,
    FULL,
    INVALID_CONDITION,
    INVALID_KEY,
    LEASE_FULL,
    NO_SUCH_KEY,
    NO_SUCH_LEASE,
    PRECONDITION_FAILED,
    TOO_MANY_KEYS,
    UNSUPPORTED,
)

TAG = Tag("Keys", "A key has a value of 0 to 1 MiB (`max_value_bytes`). Every change of the store has a revision.")

_ETAG = Header("ETag", TAG_OF_KEY, "Revision of the key in quotes.")
_OF_PAGE = Header("KV-Revision", COUNT, "Revision of the store at which the list was read.")

_GET = ApiOperation(
    method="GET",
    path="/kv/{key}",
    name="getKey",
    tag=TAG,
    summary="Read a key",
    text="The value is returned byte for byte as it was put.",
    parameters=(KEY_IN_PATH, CONSISTENCY, AS_OF, IF_MATCH, IF_NONE_MATCH),
    responses=(
        ApiResponse(
            200,
            "The value.",
            {BYTES: BINARY},
            (
                _ETAG,
                Header("KV-Revision", REVISION, "Revision of the last change of the key."),
                Header("KV-Create-Revision", REVISION, "Revision that created the key."),
                Header("KV-Version", REVISION, "Number of PUTs since the key was created."),
                Header("KV-Lease", REVISION, "Lease that the key is attached to, if any.", always=False),
                *STALENESS,
            ),
        ),
        ApiResponse(304, "The key is at a revision in `If-None-Match`.", {}, (_ETAG, *STALENESS)),
    ),
    problems=(INVALID_KEY, INVALID_CONDITION, NO_SUCH_KEY, PRECONDITION_FAILED, *READING),
    curl="curl BASE/kv/greeting",
)

_PUT = ApiOperation(
    method="PUT",
    path="/kv/{key}",
    name="putKey",
    tag=TAG,
    summary="Set a key",
    text="The body is the value; its Content-Type is not stored, and a Content-Encoding is refused. The response means "
    "that a majority of the replicas has the value on disk. Without `lease` and `ttl_s` the key is detached from its "
    "lease.",
    parameters=(KEY_IN_PATH, LEASE, TTL, *GUARD, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY),
    body=Body(BYTES, BINARY, "The value.", "hello", required=False),
    responses=(
        ApiResponse(200, "The value of an existing key was replaced.", {JSON: KeyPutDocument}, (_ETAG,)),
        ApiResponse(201, "The key was created.", {JSON: KeyPutDocument}, (_ETAG,)),
    ),
    problems=(
        *(INVALID_KEY, INVALID_CONDITION, PRECONDITION_FAILED, NO_SUCH_LEASE, LEASE_FULL, FULL, DISK_FULL),
        *(*ASKING, *SENDING, *ONCE),
    ),
    curl="curl -X PUT --data-binary 'hello' BASE/kv/greeting",
)

_DELETE = ApiOperation(
    method="DELETE",
    path="/kv/{key}",
    name="deleteKey",
    tag=TAG,
    summary="Delete a key",
    parameters=(KEY_IN_PATH, *GUARD, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY),
    responses=(ApiResponse(200, "The key was deleted.", {JSON: KeyDeletedDocument}),),
    problems=(INVALID_KEY, INVALID_CONDITION, NO_SUCH_KEY, PRECONDITION_FAILED, UNSUPPORTED, *ASKING, *ONCE),
    curl="curl -X DELETE BASE/kv/greeting",
)

_LIST = ApiOperation(
    method="GET",
    path="/kv/",
    name="listKeys",
    tag=TAG,
    summary="List keys in order",
    text="All pages are as of one revision: use the `cursor` of a page for the next one. With "
    "`Accept: application/x-ndjson` all records are sent in one response, one on each line; the last line has "
    "`revision`, `count` and `more`, or an `error`. Without `prefix`, `start` and `end` all keys are listed.",
    parameters=(*SPAN, LIMIT, CURSOR, ORDER, KEYS_ONLY, AS_OF, CONSISTENCY),
    responses=(ApiResponse(200, "The records.", {JSON: RecordPageDocument, NDJSON: TEXT}, (_OF_PAGE,)),),
    problems=READING,
    curl="curl 'BASE/kv/?prefix=job/&limit=10'",
)

_DELETE_SPAN = ApiOperation(
    method="DELETE",
    path="/kv/",
    name="deleteKeys",
    tag=TAG,
    summary="Delete many keys",
    text="Deletes up to 100,000 keys in one revision. Name them by `prefix`, or by `start` and `end`. More keys are "
    "refused with 413 unless there is a `limit`.",
    parameters=(*SPAN, DELETE_LIMIT, IDEMPOTENCY_KEY),
    responses=(ApiResponse(200, "Number of deleted keys.", {JSON: RangeDeletedDocument}),),
    problems=(TOO_MANY_KEYS, UNSUPPORTED, *ASKING, *ONCE),
    curl="curl -X DELETE 'BASE/kv/?prefix=job/'",
)

OPERATIONS = (_GET, _GET.as_head(), _PUT, _DELETE, _LIST, _LIST.as_head(), _DELETE_SPAN)
