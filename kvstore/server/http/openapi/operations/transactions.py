"""`/txn`."""

from kvstore.api.json.transaction_request import TransactionRequest
from kvstore.api.json.transaction_result import TransactionResultDocument
from kvstore.api.limits import MAX_DEPTH, MAX_OPERATIONS
from kvstore.server.http.openapi.description import ASKING, JSON, ONCE, SENDING, ApiOperation, ApiResponse, Body, Tag
from kvstore.server.http.openapi.parameters import IDEMPOTENCY_KEY
from kvstore.server.http.problems import (
    ANSWER_TOO_LARGE,
    DISK_FULL,
    FULL,
    INVALID_TRANSACTION,
    LEASE_FULL,
    NO_SUCH_LEASE,
    TOO_MANY_KEYS,
)

TAG = Tag("Transactions", "Conditions on many keys, and changes and reads of many keys, in one atomic step.")

_TXN = ApiOperation(
    method="POST",
    path="/txn",
    name="transact",
    tag=TAG,
    summary="Execute a transaction",
    text="If all conditions in `compare` hold, the operations of `then` are done, otherwise those of `else`. A "
    "condition is on one `key`, or on every key of a range (`prefix`, or `start` and `end`). Numbers and texts are "
    'compared with `{"eq": ...}`, `ne`, `lt` or `gt`; a bare value means `eq`. Every text field has a twin with '
    "`_base64` behind its name for bytes that are not UTF-8. A compare of `lock` and `fence` holds if this fencing "
    "token holds the lock. "
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
        ApiResponse(
            200, "Whether the conditions held, and the result of each operation.", {JSON: TransactionResultDocument}
        ),
    ),
    problems=(
        *(INVALID_TRANSACTION, ANSWER_TOO_LARGE, TOO_MANY_KEYS, NO_SUCH_LEASE, LEASE_FULL, FULL, DISK_FULL),
        *(*ASKING, *SENDING, *ONCE),
    ),
    curl="""curl BASE/txn -d '{"compare": [{"key": "job/1", "exists": false}],
  "then": [{"put": {"key": "job/1", "value": "new"}}], "else": [{"get": {"key": "job/1"}}]}'""",
)

OPERATIONS = (_TXN,)
