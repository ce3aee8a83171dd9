"""What may go wrong with a request, and which answers mean that."""

from typing import Literal, NoReturn

import msgspec
from multidict import CIMultiDictProxy

from kvstore.requests import Outcome

NO_SUCH_KEY = "urn:kvstore:problem:no-such-key"
MEMBERS_CHANGED = "urn:kvstore:problem:members-changed"
NO_SUCH_MEMBER = "urn:kvstore:problem:no-such-member"
PRECONDITION_FAILED = "urn:kvstore:problem:precondition-failed"
COMPACTED = "urn:kvstore:problem:compacted"
_TRANSIENT = frozenset({408, 429})
"""Refusals that say nothing against the request itself: it came too slowly, or there were too many."""
_FULL = 507

Method = Literal["GET", "PUT", "POST", "DELETE"]


class ClientError(Exception):
    """A request ended without its answer. The message says what is known and what to do."""


class Unavailable(ClientError):
    """Not done, and it left no trace: no replica could take it before the deadline. It may be repeated."""


class UnknownOutcome(ClientError):
    """A write that may have been done, or may yet be: read the key before deciding whether to repeat it."""


class Rejected(ClientError):
    """No replica takes this request, repeating it helps nobody: a key or value is too long, for instance, or the store
    is full."""


class NoSuchMember(Rejected):
    """The member to change does not exist."""


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


class _Problem(msgspec.Struct):
    """The part of an RFC 9457 body that decides what may be repeated."""

    type: str = ""
    title: str = ""
    detail: str = ""
    outcome: Outcome | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a replica answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


def accept(endpoint: str, method: Method, answer: Answer) -> Answer:
    """The answer, if it is one; else the error that says what may be repeated."""
    if answer.status in {200, 201}:
        return answer
    problem = _problem(answer)
    if problem.type == NO_SUCH_KEY:
        return answer
    text = f"{endpoint} answered {answer.status}: {problem.detail or problem.title or 'no reason given'}"
    if problem.type == NO_SUCH_MEMBER:
        raise NoSuchMember(text)
    if problem.type == PRECONDITION_FAILED:
        revision = answer.headers.get("KV-Revision")
        raise ConditionFailed(text, int(revision) if revision is not None else None)
    if problem.type == COMPACTED:
        raise Compacted(text, int(answer.headers["KV-Oldest-Revision"]))
    if problem.type == MEMBERS_CHANGED:
        raise Unavailable(text)
    if answer.status == _FULL or (400 <= answer.status < 500 and answer.status not in _TRANSIENT):
        raise Rejected(text)
    if problem.outcome is Outcome.FAILED:
        raise Unavailable(text)
    return fail(method, text, None)


def _problem(answer: Answer) -> _Problem:
    try:
        return msgspec.json.decode(answer.body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Problem()


def fail(method: Method, text: str, cause: BaseException | None) -> NoReturn:
    """A read may always be repeated; about a write, whoever does not know must say so (rule 23)."""
    if method == "GET":
        raise Unavailable(text) from cause
    raise UnknownOutcome(f"{text}; the write may have been done or not: read the key to see") from cause
