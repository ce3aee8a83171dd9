"""`/locks/`."""

from kvstore.api.json.documents import AcquireRequest, LockAcquiredDocument, LockDocument, LockReleasedDocument
from kvstore.api.limits import MAX_LOCK_VALUE_BYTES, MAX_LOCK_WAIT_S
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
    text="It goes with a `lease`, or with `ttl_s` for one of its own. The same lease that asks again gets the same "
    f"fence. With `wait_s`, up to {MAX_LOCK_WAIT_S}, whoever finds it held takes a place in the queue and waits; when "
    "the time is over the place is kept: repeat the request to go on waiting, or give it up with DELETE. `value` is "
    f"for others to read, up to {MAX_LOCK_VALUE_BYTES:,} bytes: an elected leader's address, for instance.",
    parameters=(LOCK_IN_PATH, IDEMPOTENCY_KEY),
    body=Body(JSON, AcquireRequest, "For which lease, and how long to wait.", {"ttl_s": 10}),
    responses=(
        ApiResponse(200, "It is held.", {JSON: LockAcquiredDocument}),
        ApiResponse(202, "The time is over, and the place in the queue is kept.", {JSON: LockAcquiredDocument}),
    ),
    problems=(INVALID_KEY, INVALID_LOCK, NO_SUCH_LEASE, NOT_HELD, LOCKED, LEASE_FULL, FULL, *ASKING, *SENDING, *ONCE),
    curl="""curl BASE/locks/deploy -d '{"ttl_s": 10}'""",
)
_GET = ApiOperation(
    method="GET",
    path="/locks/{name}",
    name="getLock",
    tag=TAG,
    summary="Who holds a lock, and who waits for it",
    parameters=(LOCK_IN_PATH, CONSISTENCY),
    responses=(ApiResponse(200, "The lock, which nobody may hold.", {JSON: LockDocument}),),
    problems=(INVALID_KEY, *ASKING),
    curl="curl BASE/locks/deploy",
)
_RELEASE = ApiOperation(
    method="DELETE",
    path="/locks/{name}",
    name="releaseLock",
    tag=TAG,
    summary="Give a lock up, or the place in its queue",
    parameters=(LOCK_IN_PATH, LOCK_OF_LEASE, IDEMPOTENCY_KEY),
    responses=(ApiResponse(200, "It was given up.", {JSON: LockReleasedDocument}),),
    problems=(INVALID_KEY, INVALID_LOCK, NOT_HELD, *ASKING, *ONCE),
    curl="curl -X DELETE 'BASE/locks/deploy?lease=17'",
)

OPERATIONS = (_ACQUIRE, _GET, _GET.as_head(), _RELEASE)
