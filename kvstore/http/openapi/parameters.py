"""What requests say in paths, queries and headers. The bounds are the code's own."""

from kvstore.http.openapi.description import KEY, REVISION, TEXT, Parameter, Schema
from kvstore.requests import Consistency


def _query(name: str, schema: Schema, text: str, example: str | int | None = None) -> Parameter:
    return Parameter(name, "query", schema, text, example)


def _choice(default: str, *others: str) -> Schema:
    return {"type": "string", "enum": [default, *others], "default": default}


KEY_IN_PATH = Parameter(
    "key",
    "path",
    KEY,
    "The rest of the path, percent-decoded: 1 to 1,024 bytes, any bytes. `//`, `..` and `%2F` are part of the key.",
    "greeting",
)
MEMBER_IN_PATH = Parameter("name", "path", {"type": "string", "minLength": 1}, "The name of a member.", "n3")

CONSISTENCY = _query(
    "consistency",
    _choice(*Consistency),
    "How current the answer is. `linearizable`: as of the moment the request arrived, by the leader's lease or a read "
    "index. `quorum`: the same, confirmed by a majority for this read, whatever the clocks do. `stale`: what this "
    "replica has, at once.",
)
AS_OF = _query(
    "revision", REVISION, "As of this revision of the store: what was there once it was done. 410 when it is compacted."
)

PREFIX = _query("prefix", TEXT, "The keys that begin like this; empty for all of them.", "job/")
START = _query("start", TEXT, "The keys from this one on. Not together with `prefix`.")
END = _query("end", TEXT, "The keys before this one. Not together with `prefix`.")
SPAN = (PREFIX, START, END)

LIMIT = _query("limit", REVISION, "Most records in the answer. A page has 1,000 at most, NDJSON as many as there are.")
CURSOR = _query("cursor", TEXT, "What a page with `more` gave: what comes behind it, as of the same revision.")
ORDER = _query("order", _choice("asc", "desc"), "In the order of the bytes of the keys, or backwards.")
KEYS_ONLY = _query("keys_only", _choice("false", "true"), "`true` leaves the values out.")

WATCHED_KEY = _query("key", KEY, "One key. Not together with `prefix`, `start` or `end`.")
FROM_REVISION = _query("from_revision", REVISION, "Begin with the events of this revision, which may be past.")

FORCE = _query(
    "force",
    _choice("false", "true"),
    "`true`: also where no majority of those who vote afterwards is connected to this replica.",
)

_CONDITION: Schema = {"type": "string", "pattern": r'^(\*|(W/)?"[1-9][0-9]{0,18}")$'}
IF_MATCH = Parameter(
    "If-Match", "header", _CONDITION, "Only if the key is at this revision: its ETag. `*`: only if it is there."
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    _CONDITION,
    "Only if the key is not at this revision. `*`: only if it is absent. A GET is answered by 304 where it holds not.",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "integer", "minimum": 0, "maximum": REVISION["maximum"]},
    "Begin behind the events with this id, whatever `from_revision` says. An EventSource sends it when it reconnects.",
)
