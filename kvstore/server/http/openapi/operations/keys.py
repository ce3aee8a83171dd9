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

TAG = Tag("Keys", "A key holds a value: bytes, 0 to 1 MiB of them (`max_value_bytes`). Each change has a revision.")

_ETAG = Header("ETag", TAG_OF_KEY, "The revision of the key, in quotes.")
_OF_PAGE = Header("KV-Revision", COUNT, "The revision of the store that the answer is of.")

_GET = ApiOperation(
    method="GET",
    path="/kv/{key}",
    name="getKey",
    tag=TAG,
    summary="The value of a key",
    text="Byte for byte as it was put.",
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
                Header("KV-Version", REVISION, "How often the key was put since it is there."),
                Header("KV-Lease", REVISION, "The lease that the key hangs on, if it does.", always=False),
                *STALENESS,
            ),
        ),
        ApiResponse(304, "The key is at a revision that `If-None-Match` names.", {}, (_ETAG,)),
    ),
    problems=(INVALID_KEY, INVALID_CONDITION, NO_SUCH_KEY, PRECONDITION_FAILED, *READING),
    curl="curl BASE/kv/greeting",
)

_PUT = ApiOperation(
    method="PUT",
    path="/kv/{key}",
    name="putKey",
    tag=TAG,
    summary="Make the body the value of a key",
    text="The Content-Type is not kept. It is acknowledged once a majority has it on disk. Without `lease` and `ttl_s` "
    "the key hangs on no lease from now on.",
    parameters=(KEY_IN_PATH, LEASE, TTL, *GUARD, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY),
    body=Body(BYTES, BINARY, "The value.", "hello", required=False),
    responses=(
        ApiResponse(200, "Another value took the place of the one that was there.", {JSON: KeyPutDocument}, (_ETAG,)),
        ApiResponse(201, "The key is new.", {JSON: KeyPutDocument}, (_ETAG,)),
    ),
    problems=(
        *(INVALID_KEY, INVALID_CONDITION, PRECONDITION_FAILED, NO_SUCH_LEASE, LEASE_FULL, FULL),
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
    responses=(ApiResponse(200, "What was deleted.", {JSON: KeyDeletedDocument}),),
    problems=(INVALID_KEY, INVALID_CONDITION, NO_SUCH_KEY, PRECONDITION_FAILED, UNSUPPORTED, *ASKING, *ONCE),
    curl="curl -X DELETE BASE/kv/greeting",
)

_LIST = ApiOperation(
    method="GET",
    path="/kv/",
    name="listKeys",
    tag=TAG,
    summary="Many keys in order",
    text="Page by page, all of one revision whatever happens in between: pass the `cursor` of a page on for the next "
    "one. With `Accept: application/x-ndjson` all comes in one answer: a record on each line, and last a line with "
    "`revision`, `count` and `more`, or with `error` when it broke off. A request that names no keys is for all.",
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
    text="All of them in one revision, up to 100,000. Name them by `prefix`, or by `start` and `end`.",
    parameters=(*SPAN, IDEMPOTENCY_KEY),
    responses=(ApiResponse(200, "How many there were.", {JSON: RangeDeletedDocument}),),
    problems=(TOO_MANY_KEYS, UNSUPPORTED, *ASKING, *ONCE),
    curl="curl -X DELETE 'BASE/kv/?prefix=job/'",
)

OPERATIONS = (_GET, _GET.as_head(), _PUT, _DELETE, _LIST, _LIST.as_head(), _DELETE_SPAN)
