"""`/watch`."""

from kvstore.server.http.openapi.description import (
    COUNT,
    EVENTS,
    READING,
    ApiOperation,
    ApiResponse,
    Header,
    Tag,
    events,
)
from kvstore.server.http.openapi.parameters import CONSISTENCY, FROM_REVISION, LAST_EVENT_ID, SPAN, WATCHED_KEY

TAG = Tag("Watching", "Changes of keys as they happen.")

_WATCH = ApiOperation(
    method="GET",
    path="/watch",
    name="watch",
    tag=TAG,
    summary="Watch keys (server-sent events)",
    text="Every change is sent in order, exactly once, without an end. An event is `put`, with a record, or `delete`, "
    "with the key and the revision of the deletion. The last event of a revision has the revision as its id. With "
    "`Last-Event-ID`, or `from_revision` one higher, any replica continues after it. `event: lost` ends the watch of a "
    "slow client: the next changes are compacted, and the data names the oldest revision that is not. Name the keys "
    "by `key`, by `prefix`, or by `start` and `end`.",
    parameters=(WATCHED_KEY, *SPAN, FROM_REVISION, CONSISTENCY, LAST_EVENT_ID),
    responses=(
        ApiResponse(
            200,
            "The events, until the client leaves or the replica stops.",
            {EVENTS: events("put", "delete", "lost")},
            (Header("KV-Revision", COUNT, "Revision after which the events start."),),
        ),
    ),
    problems=READING,
    curl="curl -N 'BASE/watch?prefix=job/'",
)

OPERATIONS = (_WATCH, _WATCH.as_head())
