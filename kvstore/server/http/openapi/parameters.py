"""Parameters in paths, queries and headers. Their bounds are the constants that the handlers use."""

from kvstore.api.commands import MAX_KEYS
from kvstore.api.limits import MAX_LISTED, MAX_TTL_S, MIN_TTL_S
from kvstore.api.queries import Consistency
from kvstore.server.http.openapi.description import COUNT, KEY, REVISION, TEXT, Parameter, Schema


def _query(name: str, schema: Schema, text: str, example: str | int | None = None) -> Parameter:
    return Parameter(name, "query", schema, text, example)


def _choice(default: str, *others: str) -> Schema:
    return {"type": "string", "enum": [default, *others], "default": default}


KEY_IN_PATH = Parameter(
    "key",
    "path",
    KEY,
    "The rest of the path, percent-decoded: 1 to 1,024 bytes, of which the first must not be 0. `//`, `..` and `%2F` "
    "are part of the key.",
    "greeting",
)
LEASE_IN_PATH = Parameter("id", "path", REVISION, "Number of a lease, from the response to POST /leases.", 17)
LOCK_IN_PATH = Parameter(
    "name", "path", KEY, "The rest of the path, percent-decoded, with the bounds of a key.", "deploy"
)
MEMBER_IN_PATH = Parameter("name", "path", {"type": "string", "minLength": 1}, "Name of a member.", "n3")

CONSISTENCY = _query(
    "consistency",
    _choice(*Consistency),
    "How current the result is. `linearizable`: at least as new as the request, by the leader's lease or a read index. "
    "`quorum`: the same, confirmed by a majority for this read, without trust in clocks. `stale`: the state of this "
    "replica, without asking others.",
)
AS_OF = _query("revision", REVISION, "Read as of this revision of the store. 410 if it is compacted.")

PREFIX = _query("prefix", TEXT, "Keys with this prefix; an empty prefix means all keys.", "job/")
START = _query("start", TEXT, "Keys from this one on. Excludes `prefix`.")
END = _query("end", TEXT, "Keys before this one. Excludes `prefix`.")
SPAN = (PREFIX, START, END)

LIMIT = _query(
    "limit", REVISION, "Most records in the response. A page has at most 1,000; NDJSON has no limit of its own."
)
DELETE_LIMIT = _query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_KEYS},
    "Delete at most this many keys, the first ones. Send the request again while the response has `more`.",
)
CURSOR = _query("cursor", TEXT, "Cursor of the previous page: continues after it, as of the same revision.")
ORDER = _query("order", _choice("asc", "desc"), "Ascending or descending order of the bytes of the keys.")
KEYS_ONLY = _query("keys_only", _choice("false", "true"), "`true` leaves the values out.")

WATCHED_KEY = _query("key", KEY, "One key. Excludes `prefix`, `start` and `end`.")
FROM_REVISION = _query("from_revision", REVISION, "Start with the events of this revision, which may be in the past.")

LEASE = _query("lease", REVISION, "Attach the key to this lease, which deletes it at its end. Excludes `ttl_s`.")
TTL = _query(
    "ttl_s",
    {"type": "number", "minimum": MIN_TTL_S, "maximum": MAX_TTL_S},
    "Attach the key to a new lease of this many seconds, which deletes it unless the lease is kept alive.",
)
GUARD = (
    _query("lock", KEY, "Only while `fence` holds this lock; otherwise 412 with the `fence` that holds it, or 0."),
    _query("fence", REVISION, "Fencing token from the response to POST /locks. Requires `lock`."),
)
AFTER_LEASE = _query("after", COUNT, "Leases with a higher number than this one.")
LEASES_LIMIT = _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}, "Most leases in the response.")
LOCK_OF_LEASE = Parameter("lease", "query", REVISION, "Lease that holds the lock or waits for it.", 17, required=True)

FORCE = _query(
    "force",
    _choice("false", "true"),
    "`true`: make the change even if no majority of the new voters is connected to this replica.",
)

_CONDITION: Schema = {"type": "string", "pattern": r'^(\*|(W/)?"[1-9][0-9]{0,18}")$'}
IF_MATCH = Parameter(
    "If-Match", "header", _CONDITION, "Only if the key is at this revision (its ETag). `*`: only if the key exists."
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    _CONDITION,
    "Only if the key is not at this revision. `*`: only if the key does not exist. A GET is answered by 304 otherwise.",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "integer", "minimum": 0, "maximum": REVISION["maximum"]},
    "Start after the event with this id; overrides `from_revision`. An EventSource sends it when it reconnects.",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": r"^[1-9][0-9]{0,17}\.[1-9][0-9]{0,17}$"},
    "`17.1`: a lease, a dot, and a number that grows with each new request. A repeated request with the same key is "
    "not done again at any replica, and gets the first result, while the lease lives and for its last 1,000 numbers.",
)
