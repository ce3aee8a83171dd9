"""What requests say in paths, queries and headers. The bounds are the code's own."""

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
    "The rest of the path, percent-decoded: 1 to 1,024 bytes, any but a first one of 0. `//`, `..` and `%2F` are part "
    "of the key.",
    "greeting",
)
LEASE_IN_PATH = Parameter("id", "path", REVISION, "The number of a lease, as POST /leases gave it.", 17)
LOCK_IN_PATH = Parameter(
    "name", "path", KEY, "The rest of the path, percent-decoded: 1 to 1,024 bytes, as of a key.", "deploy"
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

LEASE = _query("lease", REVISION, "The key hangs on this lease, and goes with it. Not together with `ttl_s`.")
TTL = _query(
    "ttl_s",
    {"type": "number", "minimum": MIN_TTL_S, "maximum": MAX_TTL_S},
    "The key hangs on a lease of its own: it goes after so many seconds, unless the lease is kept alive.",
)
GUARD = (
    _query("lock", KEY, "Only while `fence` holds this lock; else 412, with the `fence` that does, or 0."),
    _query("fence", REVISION, "What POST /locks gave. Together with `lock`."),
)
AFTER_LEASE = _query("after", COUNT, "Leases behind this one.")
LEASES_LIMIT = _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}, "Most leases in the answer.")
LOCK_OF_LEASE = Parameter("lease", "query", REVISION, "Whose lock or place it is.", 17, required=True)

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
    "Only if the key is not at this revision. `*`: only if it is absent. Where that does not hold a GET is answered by "
    "304.",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "integer", "minimum": 0, "maximum": REVISION["maximum"]},
    "Begin behind the events with this id, whatever `from_revision` says. An EventSource sends it when it reconnects.",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": r"^[1-9][0-9]{0,17}\.[1-9][0-9]{0,17}$"},
    "`17.1`: a lease, a dot, and a number that grows with each new request. The same request with the same key gets "
    "the first answer again, at any replica, and is not done again: while the lease lives, and for its last 1,000 "
    "numbers.",
)
