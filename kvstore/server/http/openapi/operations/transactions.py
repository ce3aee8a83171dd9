"""`/txn`."""

from kvstore.api.json.transaction_request import TransactionRequest
from kvstore.api.json.transaction_result import TransactionResultDocument
from kvstore.api.limits import MAX_DEPTH, MAX_OPERATIONS
from kvstore.server.http.openapi.description import ASKING, JSON, ONCE, SENDING, ApiOperation, ApiResponse, Body, Tag
from kvstore.server.http.openapi.parameters import IDEMPOTENCY_KEY
from kvstore.server.http.problems import (
    ANSWER_TOO_LARGE,
    FULL,
    INVALID_TRANSACTION,
    LEASE_FULL,
    NO_SUCH_LEASE,
    TOO_MANY_KEYS,
)

TAG = Tag("Transactions", "Many keys at once: compared, then changed and read in one revision, with nothing between.")

_TXN = ApiOperation(
    method="POST",
    path="/txn",
    name="transact",
    tag=TAG,
    summary="Compare, then do one of two lists of operations",
    text="When all of `compare` holds, or it is empty, `then` is done, else `else`. A key is named by `key`, many by "
    "`prefix`, or `start` and `end`: what is compared has to hold of each of them. A number or a text is compared "
    'with `{"eq": ...}`, `ne`, `lt` or `gt`; by itself it means `eq`. Wherever bytes stand as text there is a field '
    f"with `_base64` behind its name for bytes that are none. A `lock` with a `fence` is compared by "
    "itself: that the fence holds it. "
    f"Up to {MAX_OPERATIONS:,} compares and operations; `txn` nests, {MAX_DEPTH} deep.",
    parameters=(IDEMPOTENCY_KEY,),
    body=Body(
        JSON,
        TransactionRequest,
        "The transaction.",
        {
            "compare": [{"key": "job/1", "exists": False}],
            "then": [{"put": {"key": "job/1", "value": "new"}}],
            "else": [{"get": {"key": "job/1"}}],
        },
    ),
    responses=(
        ApiResponse(200, "Which list was done, and what each operation gave.", {JSON: TransactionResultDocument}),
    ),
    problems=(
        *(INVALID_TRANSACTION, ANSWER_TOO_LARGE, TOO_MANY_KEYS, NO_SUCH_LEASE, LEASE_FULL, FULL),
        *(*ASKING, *SENDING, *ONCE),
    ),
    curl="""curl BASE/txn -d '{"compare": [{"key": "job/1", "exists": false}],
  "then": [{"put": {"key": "job/1", "value": "new"}}], "else": [{"get": {"key": "job/1"}}]}'""",
)

OPERATIONS = (_TXN,)
