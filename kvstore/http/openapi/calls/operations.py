"""What an operator, a load balancer, Prometheus and a stranger ask."""

from kvstore.http.openapi.description import ASKING, BINARY, BYTES, JSON, TEXT, Call, Header, Reply, Tag
from kvstore.http.openapi.parameters import CONSISTENCY
from kvstore.http.problems import NOT_READY, STOPPING, Kind
from kvstore.metrics import CONTENT_TYPE
from kvstore.requests import Status

TAG = Tag("Operations", "One replica, and what it knows of the others.")

PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
_ETAG = Header("ETag", {"type": "string"}, "Of this version of the page.")


def _page(
    path: str,
    name: str,
    summary: str,
    reply: Reply,
    *,
    text: str = "",
    problems: tuple[Kind, ...] = (),
) -> tuple[Call, Call]:
    call = Call(
        method="GET",
        path=path,
        name=name,
        tag=TAG,
        summary=summary,
        text=text,
        replies=(reply,) if not reply.headers else (reply, Reply(304, "`If-None-Match` names it.", {}, reply.headers)),
        problems=problems,
        curl=f"curl BASE{path}",
    )
    return call, call.as_head()


_BACKUP = Call(
    method="GET",
    path="/backup",
    name="backup",
    tag=TAG,
    summary="The whole state as a stream, for `kvstore backup`",
    text="It holds every write that was acknowledged before, unless it may be stale, and is all of one moment.",
    parameters=(CONSISTENCY,),
    replies=(Reply(200, "Frames of a format of its own.", {BYTES: BINARY}),),
    problems=ASKING,
    curl="curl -o state BASE/backup",
)

CALLS = (
    *_page(
        "/status", "status", "This replica, and what it knows of the others", Reply(200, "All of it.", {JSON: Status})
    ),
    *_page("/livez", "livez", "Whether the process runs", Reply(200, "It does.", {PLAIN: TEXT})),
    *_page(
        "/readyz",
        "readyz",
        "Whether this replica serves",
        Reply(200, "It knows a leader, and has caught up.", {PLAIN: TEXT}),
        problems=(NOT_READY, STOPPING),
    ),
    *_page("/metrics", "metrics", "For Prometheus", Reply(200, "All metrics.", {CONTENT_TYPE: TEXT})),
    _BACKUP,
    *_page("/", "index", "All calls, for a terminal", Reply(200, "A line for each.", {PLAIN: TEXT})),
    *_page("/docs", "docs", "All calls, for a browser", Reply(200, "A page.", {HTML: TEXT}, (_ETAG,))),
    *_page("/openapi.json", "openapi", "All calls, for a program", Reply(200, "OpenAPI 3.1.", {JSON: {}}, (_ETAG,))),
)
