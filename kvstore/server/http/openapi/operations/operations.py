"""What an operator, a load balancer, Prometheus and a stranger ask."""

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

TAG = Tag("Operations", "One replica, and what it knows of the others.")

PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
STYLE = "text/css; charset=utf-8"
_ETAG = Header("ETag", {"type": "string"}, "Of this version of the page.")


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
        else (reply, ApiResponse(304, "`If-None-Match` names it.", {}, reply.headers)),
        problems=problems,
        curl=f"curl BASE{path}",
    )
    return call, call.as_head()


_BACKUP = ApiOperation(
    method="GET",
    path="/backup",
    name="backup",
    tag=TAG,
    summary="The whole state as a stream, for `kvstore backup`",
    text="It holds every write that was acknowledged before, unless it may be stale, and is all of one moment.",
    parameters=(CONSISTENCY,),
    responses=(ApiResponse(200, "Frames of a format of its own.", {BYTES: BINARY}),),
    problems=ASKING,
    curl="curl -o state BASE/backup",
)

_EVENTS = ApiOperation(
    method="GET",
    path="/events",
    name="events",
    tag=TAG,
    summary="What this replica is doing, as server-sent events",
    text="Four times a second an `event: glimpse`: its status, the first messages of the interval and how many there "
    "were of each kind, the newest slots, and how many requests took how long. For looking on: what is missed is "
    "gone, and `number` says so.",
    responses=(
        ApiResponse(200, "The events, until the client leaves or the replica does.", {EVENTS: events("glimpse")}),
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
    summary="A part of /ui",
    parameters=(
        Parameter("file", "path", {"type": "string", "pattern": "^[a-z]+[.](js|css)$"}, "Its name.", "app.js"),
    ),
    responses=(
        ApiResponse(200, "The file.", {SCRIPT: TEXT, STYLE: TEXT}, (_ETAG,)),
        ApiResponse(304, "`If-None-Match` names it.", {}, (_ETAG,)),
    ),
    problems=(NO_SUCH_RESOURCE,),
    curl="curl BASE/ui/app.js",
)

OPERATIONS = (
    *_page(
        "/status",
        "status",
        "This replica, and what it knows of the others",
        ApiResponse(200, "All of it.", {JSON: Status}),
    ),
    *_page("/livez", "livez", "Whether the process runs", ApiResponse(200, "It does.", {PLAIN: TEXT})),
    *_page(
        "/readyz",
        "readyz",
        "Whether this replica serves",
        ApiResponse(200, "It knows a leader, and has caught up.", {PLAIN: TEXT}),
        problems=(NOT_READY, STOPPING),
    ),
    *_page("/metrics", "metrics", "For Prometheus", ApiResponse(200, "All metrics.", {CONTENT_TYPE: TEXT})),
    _BACKUP,
    _EVENTS,
    *_page("/ui", "ui", "This replica at work, to look at", ApiResponse(200, "A page.", {HTML: TEXT}, (_ETAG,))),
    *(_FILE, _FILE.as_head()),
    *_page("/", "index", "All calls, for a terminal", ApiResponse(200, "A line for each.", {PLAIN: TEXT})),
    *_page("/docs", "docs", "All calls, for a browser", ApiResponse(200, "A page.", {HTML: TEXT}, (_ETAG,))),
    *_page(
        "/openapi.json", "openapi", "All calls, for a program", ApiResponse(200, "OpenAPI 3.1.", {JSON: {}}, (_ETAG,))
    ),
)
