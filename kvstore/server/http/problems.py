"""Error responses: `application/problem+json` (RFC 9457).

`type` is a URN such as `urn:kvstore:problem:no-leader`: programs compare it, and it is the same on every replica.
`detail` says what happened and what helps. `outcome` tells a writer whether the write may have been done (rule 23).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET

from kvstore.api.commands import MAX_KEYS
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.json.documents import ProblemDocument
from kvstore.api.queries import Consistency
from kvstore.api.results import RevisionUnavailable
from kvstore.server.http.response import HttpResponse, encode

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ProblemKind(msgspec.Struct, frozen=True):
    """A kind of error: its status, the end of its `type`, and its title."""

    status: int
    name: str
    title: str


MALFORMED = ProblemKind(400, "malformed-request", "The request is malformed")
INVALID_KEY = ProblemKind(400, "invalid-key", "The key is invalid")
INVALID_QUERY = ProblemKind(400, "invalid-query", "The query is invalid")
INVALID_CONDITION = ProblemKind(400, "invalid-condition", "The condition is invalid")
INVALID_TRANSACTION = ProblemKind(400, "invalid-transaction", "The transaction is invalid")
INVALID_LEASE = ProblemKind(400, "invalid-lease", "The request for a lease is invalid")
INVALID_LOCK = ProblemKind(400, "invalid-lock", "The request for a lock is invalid")
INVALID_IDEMPOTENCY_KEY = ProblemKind(400, "invalid-idempotency-key", "The idempotency key is invalid")
INVALID_MEMBER = ProblemKind(400, "invalid-member", "The member is invalid")
UNSUPPORTED = ProblemKind(400, "unsupported-header", "A header is not supported here")
FOREIGN_PAGE = ProblemKind(403, "foreign-page", "A page of another site may not change anything")
NO_SUCH_KEY = ProblemKind(404, "no-such-key", "The key does not exist")
COMPACTED = ProblemKind(410, "compacted", "The revision is compacted")
NO_SUCH_LEASE = ProblemKind(404, "no-such-lease", "The lease does not exist")
NOT_HELD = ProblemKind(404, "not-held", "The lease is not in the queue of this lock")
IDEMPOTENCY_KEY_EXPIRED = ProblemKind(410, "idempotency-key-expired", "The idempotency key has expired")
NO_SUCH_MEMBER = ProblemKind(404, "no-such-member", "The member does not exist")
NO_SUCH_RESOURCE = ProblemKind(404, "no-such-resource", "The path does not exist")
METHOD_NOT_ALLOWED = ProblemKind(405, "method-not-allowed", "The method is not allowed for this path")
BODY_TOO_SLOW = ProblemKind(408, "body-too-slow", "The body did not arrive in time")
LOCKED = ProblemKind(409, "locked", "The lock is held by another lease")
LEASE_FULL = ProblemKind(409, "lease-full", "The lease has as many keys and locks as it may have")
ANSWER_NOT_KEPT = ProblemKind(409, "answer-not-kept", "The request was done before, and its result is not kept")
MEMBER_EXISTS = ProblemKind(409, "member-exists", "Another member has this name or address")
MEMBER_RUNS = ProblemKind(409, "member-runs", "The member is running")
MEMBERS_CHANGED = ProblemKind(409, "members-changed", "The membership changed in the meantime")
UNSAFE_CHANGE = ProblemKind(409, "unsafe-change", "The cluster would have no majority")
ANSWER_TOO_LARGE = ProblemKind(413, "answer-too-large", "The response would be too large")
PRECONDITION_FAILED = ProblemKind(412, "precondition-failed", "The condition does not hold")
TOO_MANY_KEYS = ProblemKind(413, "too-many-keys", "The request may affect too many keys")
VALUE_TOO_LARGE = ProblemKind(413, "value-too-large", "The body is too large")
TARGET_TOO_LONG = ProblemKind(414, "target-too-long", "The request target is too long")
UNKNOWN_CONTENT_CODING = ProblemKind(415, "unknown-content-coding", "The content coding is not supported")
EXPECTATION_FAILED = ProblemKind(417, "expectation-failed", "The expectation cannot be met")
UNKNOWN_HOST = ProblemKind(421, "unknown-host", "The host name is not a name of this replica")
IDEMPOTENCY_KEY_REUSED = ProblemKind(422, "idempotency-key-reused", "Another request had this idempotency key")
OVERLOADED = ProblemKind(429, "overloaded", "Too many requests are in progress")
HEAD_TOO_LARGE = ProblemKind(431, "head-too-large", "The head of the request is too large")
INTERNAL = ProblemKind(500, "internal-error", "The replica failed on this request")
UNKNOWN_METHOD = ProblemKind(501, "unknown-method", "The method is unknown")
UNKNOWN_TRANSFER_CODING = ProblemKind(501, "unknown-transfer-coding", "The transfer coding is unknown")
NO_LEADER = ProblemKind(503, "no-leader", "No leader was reached in time")
TIMEOUT = ProblemKind(503, "timeout", "The request was not done in time")
UNSUPPORTED_VERSION = ProblemKind(505, "unsupported-version", "The version of HTTP is not supported")
FULL = ProblemKind(507, "quota-reached", "The store is full")
DISK_FULL = ProblemKind(507, "disk-full", "The disk of this replica is full")
STOPPING = ProblemKind(503, "stopping", "This replica is shutting down")
WITNESS = ProblemKind(503, "witness", "This replica is a witness and has no data")
REMOVED = ProblemKind(503, "removed", "This replica is not a member any more")
NOT_READY = ProblemKind(503, "not-ready", "This replica is not ready")

RETRY_AFTER = b"Retry-After: 1\r\n"


class Problem(Exception):
    """An error to respond with.

    `fields` holds further header lines, each with its CRLF; `about` further fields of the document.
    """

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        outcome: Outcome = Outcome.FAILED,
        fields: bytes = b"",
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.outcome = outcome
        self.fields = fields
        self.about = about

    def response(self, method: str) -> HttpResponse:
        """Return the response to a request by `method`. Only a write is told its outcome."""
        document = ProblemDocument(
            type=f"urn:kvstore:problem:{self.kind.name}",
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            outcome=self.outcome if method not in SAFE_METHODS else UNSET,
            **self.about,
        )
        fields = b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n" + self.fields
        return HttpResponse(self.kind.status, fields, encode(document) + b"\n")


_REFUSALS = {
    Reason.NO_LEADER: NO_LEADER,
    Reason.TIMEOUT: TIMEOUT,
    Reason.OVERLOADED: OVERLOADED,
    Reason.QUEUED: OVERLOADED,
    Reason.FULL: FULL,
    Reason.DISK_FULL: DISK_FULL,
    Reason.STOPPING: STOPPING,
    Reason.JOINING: NOT_READY,
    Reason.WITNESS: WITNESS,
    Reason.REMOVED: REMOVED,
}
_ADVICE = {
    Reason.NO_LEADER: "A majority of the replicas is down or disconnected, or an election is in progress. Try again. "
    "If that does not help, start the replicas that GET /status shows as disconnected. Reads with "
    "?consistency=stale work.",
    Reason.TIMEOUT: "The request was sent to the leader and not done within request_timeout_ms: a majority is "
    "disconnected, or there are too many requests. Try again more slowly. If that does not help, start the replicas "
    "that GET /status shows as disconnected.",
    Reason.OVERLOADED: "This replica has as many requests in progress as max_in_flight allows. Try again more slowly.",
    Reason.QUEUED: "The write waited behind other writes of this replica for request_timeout_ms. Try again more "
    "slowly: large values and large transactions wait for each other.",
    Reason.FULL: "The store has reached quota_bytes. Delete keys, or raise quota_bytes on all replicas. Reads and "
    "deletes work.",
    Reason.DISK_FULL: "Nothing was done. Send the request to another replica, whose disk may have room. Reads and "
    "deletes work. Make room on the disk of this replica, or delete keys; then it takes writes again by itself.",
    Reason.STOPPING: "Send the request to another replica.",
    Reason.JOINING: "This replica does not have the state of the cluster yet. Send the request to another replica. "
    "GET /readyz says what this one waits for.",
    Reason.WITNESS: "A witness votes and serves no clients. Send the request to another replica.",
    Reason.REMOVED: "This replica only serves reads with ?consistency=stale, from old state. Send the request to "
    "another replica.",
}
_PERMANENT = {Reason.FULL, Reason.WITNESS, Reason.REMOVED}
"""Reasons that a retry at this replica does not help against."""
_UNKNOWN_WRITE = " The write may have been done, or may be done later: read the key before you repeat the write."


def refusal(refused: Refused) -> Problem:
    """Return the problem for the reason why the replica did not answer."""
    detail = _ADVICE[refused.reason]
    if refused.instead:
        detail += f" Replicas that serve clients: {', '.join(refused.instead)}."
    if refused.outcome is Outcome.UNKNOWN:
        detail += _UNKNOWN_WRITE
    fields = b"" if refused.reason in _PERMANENT else RETRY_AFTER
    return Problem(_REFUSALS[refused.reason], detail, outcome=refused.outcome, fields=fields)


def revision_unavailable(known: RevisionUnavailable, revision: int, consistency: Consistency) -> Problem:
    """Return 410 for a compacted revision and 400 for a future one; 503 if only this replica may not have reached
    it."""
    if revision > known.newest and consistency is Consistency.STALE:
        detail = (
            f"This replica is at revision {known.newest}, not at {revision} yet. Read at another replica, or try again."
        )
        return Problem(NOT_READY, detail, fields=RETRY_AFTER)
    if revision > known.newest:
        detail = f"Revision {revision} does not exist yet: the store is at revision {known.newest}."
        return Problem(INVALID_QUERY, detail)
    detail = f"Revision {revision} is compacted. The oldest revision that can be read is {known.oldest}."
    return Problem(COMPACTED, detail, fields=b"KV-Oldest-Revision: %d\r\n" % known.oldest)


def too_many_keys() -> Problem:
    """Return 413 for a command that might affect more than MAX_KEYS keys."""
    detail = (
        f"Nothing was done: the request might affect more than {MAX_KEYS:,} keys. Use smaller ranges (start, end). To "
        f"delete more, repeat DELETE with limit={MAX_KEYS} while the response has more=true: each has a revision."
    )
    return Problem(TOO_MANY_KEYS, detail)


def not_allowed(method: str, allowed: str, why: str = "") -> Problem:
    """Return 405 for a path that has only the methods in `allowed`, a comma-separated list."""
    detail = f"{method} is not allowed here. Use one of: {allowed}. {why}".rstrip()
    return Problem(METHOD_NOT_ALLOWED, detail, fields=f"Allow: {allowed}\r\n".encode())


def internal_error() -> Problem:
    """Return 500 for an unexpected error. A write may have been proposed before it."""
    detail = "The log of this replica has the cause. Try another replica, and report the error with the log."
    return Problem(INTERNAL, detail, outcome=Outcome.UNKNOWN)
