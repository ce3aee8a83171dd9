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

TAG = Tag("Watching", "What happens to keys, as it happens.")

_WATCH = ApiOperation(
    method="GET",
    path="/watch",
    name="watch",
    tag=TAG,
    summary="Every change of keys as a server-sent event",
    text="In order, complete, once each, and without an end. An event is `put` or `delete`; its data is the JSON of a "
    "record, or of the key and the revision that deleted it. The last event of a revision has it as its id; with "
    "`Last-Event-ID`, or `from_revision` one higher, any replica goes on behind it. `event: lost` ends a watch whose "
    "client was too slow: what comes next is forgotten, and its data names the oldest revision that is kept. Name the "
    "keys in one way: `key`, `prefix`, or `start` and `end`.",
    parameters=(WATCHED_KEY, *SPAN, FROM_REVISION, CONSISTENCY, LAST_EVENT_ID),
    responses=(
        ApiResponse(
            200,
            "The events, until the client leaves or the replica does.",
            {EVENTS: events("put", "delete", "lost")},
            (Header("KV-Revision", COUNT, "The revision behind which the events begin."),),
        ),
    ),
    problems=READING,
    curl="curl -N 'BASE/watch?prefix=job/'",
)

OPERATIONS = (_WATCH,)
