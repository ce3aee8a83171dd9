"""The pages for operators, load balancers, Prometheus and newcomers, and the backup."""

from kvstore.api.status import Status
from kvstore.server.http.openapi.description import (
    ASKING,
    BINARY,
    BYTES,
    EVENTS,
    JSON,
    TEXT,
    ApiOperation,
    ApiResponse,
    Header,
    Parameter,
    Schema,
    Tag,
    events,
)
from kvstore.server.http.openapi.parameters import CONSISTENCY
from kvstore.server.http.problems import NO_SUCH_RESOURCE, NOT_READY, OVERLOADED, STOPPING, ProblemKind
from kvstore.server.metrics import CONTENT_TYPE

TAG = Tag("Operations", "The state of one replica, and its view of the others.")

PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
STYLE = "text/css; charset=utf-8"
_ETAG = Header("ETag", {"type": "string"}, "Version of the page.")


def _page(
    path: str,
    name: str,
    summary: str,
    reply: ApiResponse,
    *,
    text: str = "",
    problems: tuple[ProblemKind, ...] = (),
) -> tuple[ApiOperation, ApiOperation]:
    call = ApiOperation(
        method="GET",
        path=path,
        name=name,
        tag=TAG,
        summary=summary,
        text=text,
        responses=(reply,)
        if not reply.headers
        else (reply, ApiResponse(304, "The client has this version (`If-None-Match`).", {}, reply.headers)),
        problems=problems,
        curl=f"curl BASE{path}",
    )
    return call, call.as_head()


_BACKUP = ApiOperation(
    method="GET",
    path="/backup",
    name="backup",
    tag=TAG,
    summary="Download a backup, for `kvstore backup`",
    text="A consistent snapshot with every write that was acknowledged before the request, unless `consistency=stale`.",
    parameters=(CONSISTENCY,),
    responses=(ApiResponse(200, "A binary stream of frames.", {BYTES: BINARY}),),
    problems=ASKING,
    curl="curl -o state BASE/backup",
)

_EVENTS = ApiOperation(
    method="GET",
    path="/events",
    name="events",
    tag=TAG,
    summary="Watch the activity of this replica (server-sent events)",
    text="Four times per second, an `event: glimpse` has the status, the first messages of the interval, the number of "
    "messages of each kind, the newest slots, and the number and latency of requests. A slow reader misses events, "
    "which shows as a gap in `number`.",
    responses=(
        ApiResponse(200, "The events, until the client leaves or the replica stops.", {EVENTS: events("glimpse")}),
    ),
    problems=(OVERLOADED,),
    curl="curl -N BASE/events",
)

_FILE_NAME: Schema = {"type": "string", "pattern": "^[a-z]+[.](js|css)$"}
_FILE = ApiOperation(
    method="GET",
    path="/ui/{file}",
    name="uiFile",
    tag=TAG,
    summary="A file of the page /ui",
    parameters=(
        Parameter("file", "path", {"type": "string", "pattern": "^[a-z]+[.](js|css)$"}, "Name of the file.", "app.js"),
    ),
    responses=(
        ApiResponse(200, "The file.", {SCRIPT: TEXT, STYLE: TEXT}, (_ETAG,)),
        ApiResponse(304, "The client has this version (`If-None-Match`).", {}, (_ETAG,)),
    ),
    problems=(NO_SUCH_RESOURCE,),
    curl="curl BASE/ui/app.js",
)

OPERATIONS = (
    *_page(
        "/status",
        "status",
        "Show the state of this replica",
        ApiResponse(200, "All of it.", {JSON: Status}),
    ),
    *_page("/livez", "livez", "Liveness probe", ApiResponse(200, "The process runs.", {PLAIN: TEXT})),
    *_page(
        "/readyz",
        "readyz",
        "Readiness probe",
        ApiResponse(200, "This replica knows a leader and has caught up.", {PLAIN: TEXT}),
        problems=(NOT_READY, STOPPING),
    ),
    *_page("/metrics", "metrics", "Metrics for Prometheus", ApiResponse(200, "All metrics.", {CONTENT_TYPE: TEXT})),
    *(_BACKUP, _BACKUP.as_head()),
    *(_EVENTS, _EVENTS.as_head()),
    *_page("/ui", "ui", "Page that shows this replica at work", ApiResponse(200, "A page.", {HTML: TEXT}, (_ETAG,))),
    *(_FILE, _FILE.as_head()),
    *_page("/", "index", "API overview as text", ApiResponse(200, "One line for each operation.", {PLAIN: TEXT})),
    *_page("/docs", "docs", "API reference as a page", ApiResponse(200, "A page.", {HTML: TEXT}, (_ETAG,))),
    *_page(
        "/openapi.json",
        "openapi",
        "API description for programs",
        ApiResponse(200, "OpenAPI 3.1.", {JSON: {}}, (_ETAG,)),
    ),
)
