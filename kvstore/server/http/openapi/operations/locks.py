"""`/locks/`."""

from kvstore.api.json.documents import AcquireRequest, LockAcquiredDocument, LockDocument, LockReleasedDocument
from kvstore.api.limits import MAX_LOCK_VALUE_BYTES, MAX_LOCK_WAIT_S, PROVISIONAL_TTL_S
from kvstore.server.http.openapi.description import ASKING, JSON, ONCE, SENDING, ApiOperation, ApiResponse, Body, Tag
from kvstore.server.http.openapi.parameters import CONSISTENCY, IDEMPOTENCY_KEY, LOCK_IN_PATH, LOCK_OF_LEASE
from kvstore.server.http.problems import FULL, INVALID_KEY, INVALID_LOCK, LEASE_FULL, LOCKED, NO_SUCH_LEASE, NOT_HELD

TAG = Tag(
    "Locks",
    "Who comes first has the lock, until it gives it up or its lease is over. Each holder has a fence, a number that "
    "grows from one to the next: what a lock guards is written on the condition that the fence still holds it.",
)

_ACQUIRE = ApiOperation(
    method="POST",
    path="/locks/{name}",
    name="acquireLock",
    tag=TAG,
    summary="Acquire a lock, or wait for it",
    text="The lock is held by `lease`, or by a new lease of `ttl_s` seconds, until it is released or the lease ends. A "
    "lease that asks again gets the same fencing token (`fence`). With `wait_s`, up to "
    f"{MAX_LOCK_WAIT_S}, the lease waits in the queue of a held lock. It keeps its place when that time is over: "
    "repeat the request with `lease` to wait longer, or leave the queue with DELETE. With `ttl_s`, the replica renews "
    "the lease while the client waits and is connected, and gives it the TTL `ttl_s` when it holds the lock; a new "
    f"lease has at most {PROVISIONAL_TTL_S} seconds until then. `value` is shown to readers of the lock, up to "
    f"{MAX_LOCK_VALUE_BYTES:,} bytes: the address of an elected leader, for example.",
    parameters=(LOCK_IN_PATH, IDEMPOTENCY_KEY),
    body=Body(JSON, AcquireRequest, "Lease, value and waiting time.", {"ttl_s": 10}),
    responses=(
        ApiResponse(200, "The lease holds the lock.", {JSON: LockAcquiredDocument}),
        ApiResponse(202, "The lease still waits in the queue.", {JSON: LockAcquiredDocument}),
    ),
    problems=(INVALID_KEY, INVALID_LOCK, NO_SUCH_LEASE, NOT_HELD, LOCKED, LEASE_FULL, FULL, *ASKING, *SENDING, *ONCE),
    curl="""curl BASE/locks/deploy -d '{"ttl_s": 10}'""",
)
_GET = ApiOperation(
    method="GET",
    path="/locks/{name}",
    name="getLock",
    tag=TAG,
    summary="Show the holder of a lock, and its queue",
    parameters=(LOCK_IN_PATH, CONSISTENCY),
    responses=(ApiResponse(200, "The lock; `holder` is null if it is free.", {JSON: LockDocument}),),
    problems=(INVALID_KEY, *ASKING),
    curl="curl BASE/locks/deploy",
)
_RELEASE = ApiOperation(
    method="DELETE",
    path="/locks/{name}",
    name="releaseLock",
    tag=TAG,
    summary="Release a lock, or leave its queue",
    parameters=(LOCK_IN_PATH, LOCK_OF_LEASE, IDEMPOTENCY_KEY),
    responses=(
        ApiResponse(
            200, "The lease does not hold the lock, and does not wait for it, any more.", {JSON: LockReleasedDocument}
        ),
    ),
    problems=(INVALID_KEY, INVALID_LOCK, NOT_HELD, *ASKING, *ONCE),
    curl="curl -X DELETE 'BASE/locks/deploy?lease=17'",
)

OPERATIONS = (_ACQUIRE, _GET, _GET.as_head(), _RELEASE)
