"""Every answer that is not the one asked for: `application/problem+json` after RFC 9457.

`type` is a URN (`urn:kvstore:problem:no-leader`): programs compare it, nobody fetches it, and it is the same on every
replica. `detail` says what to do next. `outcome` tells a writer whether the write may have happened (rule 23).
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
    """A sort of problem: its status, the end of its `type`, and its title, the same each time it occurs."""

    status: int
    name: str
    title: str


MALFORMED = ProblemKind(400, "malformed-request", "The request is malformed")
INVALID_KEY = ProblemKind(400, "invalid-key", "The key is not valid")
INVALID_QUERY = ProblemKind(400, "invalid-query", "The query is not valid")
INVALID_CONDITION = ProblemKind(400, "invalid-condition", "The condition is not valid")
INVALID_TRANSACTION = ProblemKind(400, "invalid-transaction", "The transaction is not valid")
INVALID_LEASE = ProblemKind(400, "invalid-lease", "The lease is not valid")
INVALID_LOCK = ProblemKind(400, "invalid-lock", "The request for a lock is not valid")
INVALID_IDEMPOTENCY_KEY = ProblemKind(400, "invalid-idempotency-key", "The idempotency key is not valid")
INVALID_MEMBER = ProblemKind(400, "invalid-member", "The member is not valid")
UNSUPPORTED = ProblemKind(400, "unsupported-header", "A header asks for what this store does not do")
FOREIGN_PAGE = ProblemKind(403, "foreign-page", "A page of another site may not change anything")
NO_SUCH_KEY = ProblemKind(404, "no-such-key", "The key is absent")
COMPACTED = ProblemKind(410, "compacted", "The revision is not kept any more")
NO_SUCH_LEASE = ProblemKind(404, "no-such-lease", "There is no such lease")
NOT_HELD = ProblemKind(404, "not-held", "The lease does not have this lock")
IDEMPOTENCY_KEY_EXPIRED = ProblemKind(410, "idempotency-key-expired", "The idempotency key is not kept any more")
NO_SUCH_MEMBER = ProblemKind(404, "no-such-member", "There is no such member")
NO_SUCH_RESOURCE = ProblemKind(404, "no-such-resource", "There is nothing at this path")
METHOD_NOT_ALLOWED = ProblemKind(405, "method-not-allowed", "The method is not allowed here")
BODY_TOO_SLOW = ProblemKind(408, "body-too-slow", "The body did not arrive in time")
LOCKED = ProblemKind(409, "locked", "Somebody else holds the lock")
LEASE_FULL = ProblemKind(409, "lease-full", "Nothing more may hang on the lease")
ANSWER_NOT_KEPT = ProblemKind(409, "answer-not-kept", "It was done before, and its answer is not kept")
MEMBER_EXISTS = ProblemKind(409, "member-exists", "The name or the address is another member's")
MEMBER_RUNS = ProblemKind(409, "member-runs", "The member runs, with the data that it has")
MEMBERS_CHANGED = ProblemKind(409, "members-changed", "The members were changed meanwhile")
UNSAFE_CHANGE = ProblemKind(409, "unsafe-change", "The cluster would not be able to decide anything")
ANSWER_TOO_LARGE = ProblemKind(413, "answer-too-large", "The answer would be too large")
PRECONDITION_FAILED = ProblemKind(412, "precondition-failed", "The condition does not hold")
TOO_MANY_KEYS = ProblemKind(413, "too-many-keys", "It would look at too many keys at once")
VALUE_TOO_LARGE = ProblemKind(413, "value-too-large", "The value is too large")
EXPECTATION_FAILED = ProblemKind(417, "expectation-failed", "The expectation cannot be met")
IDEMPOTENCY_KEY_REUSED = ProblemKind(422, "idempotency-key-reused", "Another request had this idempotency key")
OVERLOADED = ProblemKind(429, "overloaded", "Too many requests are in flight")
INTERNAL = ProblemKind(500, "internal-error", "The replica failed on this request")
NO_LEADER = ProblemKind(503, "no-leader", "No leader was reached in time")
TIMEOUT = ProblemKind(503, "timeout", "The request was not done in time")
FULL = ProblemKind(507, "quota-reached", "The store is full")
STOPPING = ProblemKind(503, "stopping", "This replica is shutting down")
WITNESS = ProblemKind(503, "witness", "This replica is a witness, and has no data")
REMOVED = ProblemKind(503, "removed", "This replica is not a member any more")
NOT_READY = ProblemKind(503, "not-ready", "This replica is not ready")

RETRY_AFTER = b"Retry-After: 1\r\n"


class Problem(Exception):
    """Raised where a request cannot be answered as asked. `fields`: further header lines, each with its CRLF; `about`:
    further members of the document, for programs."""

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
    Reason.FULL: FULL,
    Reason.STOPPING: STOPPING,
    Reason.JOINING: NOT_READY,
    Reason.WITNESS: WITNESS,
    Reason.REMOVED: REMOVED,
}
_ADVICE = {
    Reason.NO_LEADER: "No majority of the replicas is up and connected, or it is electing a leader. Try again; if it "
    "lasts, start those that GET /status shows as missing. Reads with ?consistency=stale go on.",
    Reason.TIMEOUT: "No majority confirmed it in time. Try again; if it lasts, see GET /status for who is missing.",
    Reason.OVERLOADED: "This replica has as many requests in flight as it takes. Try again, more slowly.",
    Reason.FULL: "What is stored has reached quota_bytes. Delete keys, or raise the quota on all replicas; reads and "
    "deletes go on.",
    Reason.STOPPING: "Send the request to another replica.",
    Reason.JOINING: "It joins the cluster, and has not been given the data yet. Send the request to another replica; "
    "GET /readyz tells when this one serves.",
    Reason.WITNESS: "It votes, and serves no client. Send the request to another replica.",
    Reason.REMOVED: "It only answers reads with ?consistency=stale, out of what it had. Send the request to another "
    "replica.",
}
_LASTING = {Reason.FULL, Reason.WITNESS, Reason.REMOVED}
_UNKNOWN_WRITE = " The write may have been done or may yet be done: read the key before you rely on either."


def refusal(refused: Refused) -> Problem:
    """The problem that tells why the replica did not answer."""
    detail = _ADVICE[refused.reason]
    if refused.instead:
        detail += f" Those are {', '.join(refused.instead)}."
    if refused.outcome is Outcome.UNKNOWN:
        detail += _UNKNOWN_WRITE
    fields = b"" if refused.reason in _LASTING else RETRY_AFTER
    return Problem(_REFUSALS[refused.reason], detail, outcome=refused.outcome, fields=fields)


def revision_unavailable(range_: RevisionUnavailable, revision: int, consistency: Consistency) -> Problem:
    """410 for a revision that is compacted, 400 for one that was not reached, 503 where only this replica may not have
    reached it."""
    if revision > range_.newest and consistency is Consistency.STALE:
        detail = f"This replica has reached revision {range_.newest}, not {revision} yet. Ask another one, or again."
        return Problem(NOT_READY, detail, fields=RETRY_AFTER)
    if revision > range_.newest:
        return Problem(INVALID_QUERY, f"Revision {revision} was not reached: the store is at {range_.newest}.")
    detail = f"Revision {revision} is compacted. The oldest that is kept is {range_.oldest}: ask as of a later one."
    return Problem(COMPACTED, detail, fields=b"KV-Oldest-Revision: %d\r\n" % range_.oldest)


def too_many_keys() -> Problem:
    """413 for what was refused whole."""
    detail = f"Nothing was done: it might look at more than {MAX_KEYS:,} keys. Do it in parts, by start and end."
    return Problem(TOO_MANY_KEYS, detail)


def not_allowed(method: str, allowed: str, why: str = "") -> Problem:
    """405 for a path that knows only the methods in `allowed`, a comma-separated list."""
    detail = f"{method} is not possible here. Use one of: {allowed}. {why}".rstrip()
    return Problem(METHOD_NOT_ALLOWED, detail, fields=f"Allow: {allowed}\r\n".encode())


def internal_error() -> Problem:
    """500 for what nobody foresaw. A write may have gone out before it."""
    detail = "The replica's log has the cause. Try another replica, and report this together with the log."
    return Problem(INTERNAL, detail, outcome=Outcome.UNKNOWN)
