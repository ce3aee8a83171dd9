"""`/leases`."""

from kvstore.api.json.documents import (
    GrantRequest,
    LeaseDocument,
    LeaseGrantedDocument,
    LeasePageDocument,
    RangeDeletedDocument,
)
from kvstore.api.limits import MAX_LISTED
from kvstore.server.http.openapi.description import (
    ASKING,
    JSON,
    ONCE,
    SENDING,
    TEXT,
    ApiOperation,
    ApiResponse,
    Body,
    Header,
    Tag,
)
from kvstore.server.http.openapi.parameters import (
    AFTER_LEASE,
    CONSISTENCY,
    IDEMPOTENCY_KEY,
    LEASE_IN_PATH,
    LEASES_LIMIT,
)
from kvstore.server.http.problems import FULL, INVALID_IDEMPOTENCY_KEY, INVALID_LEASE, NO_SUCH_LEASE, NO_SUCH_RESOURCE

TAG = Tag(
    "Leases",
    "A lease ends when it is revoked or not kept alive in time. Its keys are deleted and its locks released.",
)

_GRANT = ApiOperation(
    method="POST",
    path="/leases",
    name="grantLease",
    tag=TAG,
    summary="Grant a lease",
    text="The lease lives for `ttl_s` seconds, and for as long again after each keep-alive.",
    parameters=(IDEMPOTENCY_KEY,),
    body=Body(JSON, GrantRequest, "Time to live.", {"ttl_s": 10}),
    responses=(
        ApiResponse(
            201,
            "The lease was granted.",
            {JSON: LeaseGrantedDocument},
            (Header("Location", TEXT, "Path of the lease."),),
        ),
    ),
    problems=(INVALID_LEASE, FULL, *ASKING, *SENDING, *ONCE),
    curl="""curl BASE/leases -d '{"ttl_s": 10}'""",
)
_KEEP_ALIVE = ApiOperation(
    method="POST",
    path="/leases/{id}/keepalive",
    name="keepLeaseAlive",
    tag=TAG,
    summary="Keep a lease alive",
    text="The lease lives for its whole time to live from now on. A third of that is a good interval.",
    parameters=(LEASE_IN_PATH,),
    responses=(ApiResponse(200, "The lease was renewed.", {JSON: LeaseGrantedDocument}),),
    problems=(INVALID_LEASE, NO_SUCH_LEASE, NO_SUCH_RESOURCE, INVALID_IDEMPOTENCY_KEY, *ASKING),
    curl="curl -X POST BASE/leases/17/keepalive",
)
_GET = ApiOperation(
    method="GET",
    path="/leases/{id}",
    name="getLease",
    tag=TAG,
    summary="Show a lease and its keys",
    text="`left_s` is null except on the leader, which alone measures it.",
    parameters=(LEASE_IN_PATH, CONSISTENCY),
    responses=(ApiResponse(200, "The lease.", {JSON: LeaseDocument}),),
    problems=(NO_SUCH_LEASE, NO_SUCH_RESOURCE, *ASKING),
    curl="curl BASE/leases/17",
)
_REVOKE = ApiOperation(
    method="DELETE",
    path="/leases/{id}",
    name="revokeLease",
    tag=TAG,
    summary="Revoke a lease, and delete its keys",
    parameters=(LEASE_IN_PATH, IDEMPOTENCY_KEY),
    responses=(ApiResponse(200, "Number of deleted keys.", {JSON: RangeDeletedDocument}),),
    problems=(NO_SUCH_LEASE, NO_SUCH_RESOURCE, *ASKING, *ONCE),
    curl="curl -X DELETE BASE/leases/17",
)
_LIST = ApiOperation(
    method="GET",
    path="/leases",
    name="listLeases",
    tag=TAG,
    summary="List leases in the order of their grants",
    text=f"Returns up to {MAX_LISTED:,} leases. If `more` is true, ask for those `after` the last one.",
    parameters=(AFTER_LEASE, LEASES_LIMIT, CONSISTENCY),
    responses=(ApiResponse(200, "The leases.", {JSON: LeasePageDocument}),),
    problems=ASKING,
    curl="curl BASE/leases",
)

OPERATIONS = (_GRANT, _LIST, _LIST.as_head(), _KEEP_ALIVE, _GET, _GET.as_head(), _REVOKE)
