"""What may go wrong with a request, and which answers mean that.

ClientError
  NotDone             definitely not done, it left no trace
    Unavailable         and may be repeated
    Rejected            and repeating it helps nobody
      ConditionFailed, LockLost, Locked, NoSuchLease, NoSuchMember, Compacted
  UnknownOutcome      it may have been done, or may yet be
    AnswerLost          it was done; what it gave is not known
"""

from typing import Literal, NoReturn

import msgspec
from multidict import CIMultiDictProxy

from kvstore.api.errors import Outcome

_TYPE = "urn:kvstore:problem:"
NO_SUCH_KEY = f"{_TYPE}no-such-key"
_TRANSIENT = frozenset({408, 429})
"""Refusals that say nothing against the request itself: it came too slowly, or there were too many."""
_FULL = 507

Method = Literal["GET", "PUT", "POST", "DELETE"]


class ClientError(Exception):
    """A request ended without its answer. The message says what is known and what to do."""


class NotDone(ClientError):
    """Definitely not done: it left no trace and never will."""


class Unavailable(NotDone):
    """Not done: no replica could take it before the deadline. It may be repeated."""


class Rejected(NotDone):
    """No replica takes this request, repeating it helps nobody: a key or value is too long, for instance, or the store
    is full."""


class UnknownOutcome(ClientError):
    """A write that may have been done, or may yet be: read the key before deciding whether to repeat it."""


class AnswerLost(UnknownOutcome):
    """It was done, and its answer is too long to be sent or to be kept: read the keys to see what it gave."""


class IdempotencyKeyExpired(UnknownOutcome):
    """Nothing was done now, and nobody knows whether it was done under this idempotency key before."""


class NoSuchMember(Rejected):
    """The member to change does not exist."""


class NoSuchLease(Rejected):
    """The lease is over, or never was."""


class Locked(Rejected):
    """Somebody else holds the lock, and the time to wait for it is over."""


class LockLost(Rejected):
    """Nothing was done: the fence does not hold its lock any more. `fence` does now, 0 for nobody."""

    def __init__(self, text: str, fence: int) -> None:
        super().__init__(text)
        self.fence = fence


class ConditionFailed(Rejected):
    """Nothing was done: the key is not as the condition says. `revision` is its present one, None when it is absent."""

    def __init__(self, text: str, revision: int | None) -> None:
        super().__init__(text)
        self.revision = revision


class Compacted(Rejected):
    """The revision is not kept any more; `oldest` is the first that can be asked for."""

    def __init__(self, text: str, oldest: int) -> None:
        super().__init__(text)
        self.oldest = oldest


_NAMED: dict[str, type[ClientError]] = {
    "no-such-member": NoSuchMember,
    "no-such-lease": NoSuchLease,
    "locked": Locked,
    "members-changed": Unavailable,
    "idempotency-key-expired": IdempotencyKeyExpired,
    "answer-not-kept": AnswerLost,
}
"""What problems mean that have a word of their own."""


class _Problem(msgspec.Struct):
    """The part of an RFC 9457 body that decides what may be repeated."""

    type: str = ""
    title: str = ""
    detail: str = ""
    outcome: Outcome | None = None
    fence: int | None = None


class Response(msgspec.Struct, frozen=True):
    """What a replica answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


def accept(endpoint: str, method: Method, answer: Response) -> Response:
    """The answer, if it is one; else the error that says what may be repeated."""
    if answer.status in {200, 201, 202}:
        return answer
    problem = _problem(answer)
    if problem.type == NO_SUCH_KEY:
        return answer
    text = f"{endpoint} answered {answer.status}: {problem.detail or problem.title or 'no reason given'}"
    name = problem.type.removeprefix(_TYPE)
    if name in _NAMED:
        raise _NAMED[name](text)
    if name == "precondition-failed":
        raise _failed(text, problem, answer)
    if name == "compacted":
        raise Compacted(text, int(answer.headers["KV-Oldest-Revision"]))
    if answer.status == _FULL or (400 <= answer.status < 500 and answer.status not in _TRANSIENT):
        raise AnswerLost(text) if problem.outcome is Outcome.UNKNOWN else Rejected(text)
    if problem.outcome is Outcome.FAILED:
        raise Unavailable(text)
    return fail(method, text, None)


def _failed(text: str, problem: _Problem, answer: Response) -> Rejected:
    if problem.fence is not None:
        return LockLost(text, problem.fence)
    revision = answer.headers.get("KV-Revision")
    return ConditionFailed(text, int(revision) if revision is not None else None)


def _problem(answer: Response) -> _Problem:
    try:
        return msgspec.json.decode(answer.body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Problem()


def fail(method: Method, text: str, cause: BaseException | None) -> NoReturn:
    """A read may always be repeated; about a write, whoever does not know must say so (rule 23)."""
    if method == "GET":
        raise Unavailable(text) from cause
    raise UnknownOutcome(f"{text}; the write may have been done or not: read the key to see") from cause
