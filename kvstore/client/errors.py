"""The errors of a client, and the mapping from responses to errors.

ClientError
  NotDone             the request was not executed and never will be
    Unavailable         repeating it may help
    Rejected            repeating it does not help
      ConditionFailed, LockLost, Locked, NoSuchLease, NoSuchMember, Compacted
  UnknownOutcome      the request may have been executed, or may still be
    AnswerLost          the request was executed; its result is unknown
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn, TypeVar

import msgspec
from multidict import CIMultiDictProxy

from kvstore.api.errors import Outcome
from kvstore.api.json.documents import ProblemDocument
from kvstore.api.limits import MAX_REVISION
from kvstore.api.numbers import parse_integer

_TYPE = "urn:kvstore:problem:"
NO_SUCH_KEY = f"{_TYPE}no-such-key"
_TRANSIENT = frozenset({408, 429})
"""4xx statuses that do not reject the request itself: it arrived too slowly, or there were too many requests."""
_FULL = 507

Method = Literal["GET", "PUT", "POST", "DELETE"]
T = TypeVar("T")


class ClientError(Exception):
    """A request ended without a result. The message says what is known and what to do."""


class NotDone(ClientError):
    """The request was not executed and never will be."""


class Unavailable(NotDone):
    """No replica could execute the request before the deadline. Repeat it later."""


class Rejected(NotDone):
    """No replica accepts this request, and repeating it does not help: a key or value is too long, for instance, or the
    store is full."""


class UnknownOutcome(ClientError):
    """A write may have been executed, or may still be: read the key before deciding whether to repeat the write."""


class AnswerLost(UnknownOutcome):
    """The request was executed, but its result is too long to be sent or to be stored: read the keys to see it."""


class IdempotencyKeyExpired(UnknownOutcome):
    """The request was not executed. Whether an earlier one with its idempotency key was executed is no longer known."""


class NoSuchMember(Rejected):
    """The member to change does not exist."""


class NoSuchLease(Rejected):
    """The lease has ended, or never existed."""


class Locked(Rejected):
    """Another client still holds the lock at the end of the waiting time."""


class LockLost(Rejected):
    """Nothing was written: the fencing token is not that of the present holder. `fence` is the token of the present
    holder, 0 when the lock is free."""

    def __init__(self, text: str, fence: int) -> None:
        super().__init__(text)
        self.fence = fence


class ConditionFailed(Rejected):
    """Nothing was written: the key does not meet the condition. `revision` is its present revision, None when the key
    is absent."""

    def __init__(self, text: str, revision: int | None) -> None:
        super().__init__(text)
        self.revision = revision


class Compacted(Rejected):
    """The history no longer contains this revision. `oldest` is the oldest revision that it contains."""

    def __init__(self, text: str, oldest: int) -> None:
        super().__init__(text)
        self.oldest = oldest


_ERRORS: dict[str, type[ClientError]] = {
    "no-such-member": NoSuchMember,
    "no-such-lease": NoSuchLease,
    "locked": Locked,
    "members-changed": Unavailable,
    "disk-full": Unavailable,
    "idempotency-key-expired": IdempotencyKeyExpired,
    "answer-not-kept": AnswerLost,
}
"""Errors by problem type, for the types that alone determine the error."""


class Response(msgspec.Struct, frozen=True):
    """The HTTP response to a request of `method` from `endpoint`, which may be another program than a replica."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    endpoint: str = "the endpoint"
    method: Method = "GET"

    def decode(self, form: type[T]) -> T:
        """Return the document in the body. Raises Unavailable, or UnknownOutcome for a write, if it is another one."""
        with self.of_a_replica():
            return msgspec.json.decode(self.body, type=form)

    def number(self, name: str) -> int:
        """Return the number in the header `name`. Raises as `decode`."""
        with self.of_a_replica():
            if name not in self.headers:
                raise ValueError(f"without the header {name}")
            return parse_integer(self.headers[name], 0, MAX_REVISION)

    @contextmanager
    def of_a_replica(self) -> Iterator[None]:
        """Turn the errors of code that reads the response into Unavailable, or UnknownOutcome for a write."""
        try:
            yield
        except (ValueError, KeyError) as error:
            text = f"{self.endpoint} answered {self.status}, but not as a replica of this release ({error})"
            fail(self.method, f"{text}: check the endpoint", error)


def accept(endpoint: str, method: Method, response: Response) -> Response:
    """Return `response` if it is a result, otherwise raise its error. The absence of a key is a result."""
    if response.status in {200, 201, 202}:
        return response
    problem = _problem(response)
    if problem.type == NO_SUCH_KEY:
        return response
    text = f"{endpoint} answered {response.status}: {problem.detail or problem.title or 'no reason given'}"
    name = problem.type.removeprefix(_TYPE)
    if name in _ERRORS:
        raise _ERRORS[name](text)
    if name == "precondition-failed":
        raise _condition_error(text, problem, response)
    if name == "compacted":
        raise Compacted(text, response.number("KV-Oldest-Revision"))
    if response.status == _FULL or (400 <= response.status < 500 and response.status not in _TRANSIENT):
        raise AnswerLost(text) if problem.outcome is Outcome.UNKNOWN else Rejected(text)
    if problem.outcome is Outcome.FAILED:
        raise Unavailable(text)
    return fail(method, text, None)


def _condition_error(text: str, problem: ProblemDocument, response: Response) -> Rejected:
    if isinstance(problem.fence, int):
        return LockLost(text, problem.fence)
    return ConditionFailed(text, response.number("KV-Revision") if "KV-Revision" in response.headers else None)


def _problem(response: Response) -> ProblemDocument:
    try:
        return msgspec.json.decode(response.body, type=ProblemDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ProblemDocument()


def fail(method: Method, text: str, cause: BaseException | None) -> NoReturn:
    """Raise the error of a request of unknown outcome: Unavailable for a read, which can always be repeated,
    UnknownOutcome for a write (rule 23)."""
    if method == "GET":
        raise Unavailable(text) from cause
    raise UnknownOutcome(f"{text}; the write may or may not have been executed: read the key to find out") from cause
