"""Writes: `Idempotency-Key`, and the results that stand for an error.

An idempotency key is `<lease>.<number>`: a lease from `POST /leases`, and a number that grows with each new request;
see `kvstore.state_machine.idempotency`.
"""

from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from kvstore.api.commands import (
    AnswerExpired,
    AnswerNotKept,
    Command,
    IdempotencyKeyReused,
    Idempotent,
    LeaseFull,
    LeaseNotFound,
    RepeatableCommand,
    Result,
    TooManyKeys,
)
from kvstore.api.errors import Outcome
from kvstore.api.numbers import InvalidNumberError, parse_integer, shown
from kvstore.server.http.problems import (
    ANSWER_NOT_KEPT,
    IDEMPOTENCY_KEY_EXPIRED,
    IDEMPOTENCY_KEY_REUSED,
    INVALID_IDEMPOTENCY_KEY,
    LEASE_FULL,
    NO_SUCH_LEASE,
    Problem,
    too_many_keys,
)
from kvstore.server.http.request import HttpRequest
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService
from kvstore.state_machine.idempotency import KEPT
from kvstore.state_machine.leases import MAX_ATTACHED

NAME = "Idempotency-Key"
HEADER = NAME.lower().encode()
_MAX_NUMBER = 10**18 - 1
_USAGE = "17.1: a lease from POST /leases, a dot, and a number from 1 that grows with each new request"
_CONDITIONS = (b"if-match", b"if-none-match")


class IdempotencyKey(NamedTuple):
    """The name by which a repeated request is recognized."""

    lease: int
    number: int

    @classmethod
    def of(cls, request: HttpRequest) -> "IdempotencyKey | None":
        """Return the key of a request, None if it has none. Raises Problem for an invalid one."""
        given = request.header(HEADER)
        if given is None:
            return None
        text = given.strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        lease, _, number = text.partition(".")
        try:
            return cls(parse_integer(lease, 1, _MAX_NUMBER), parse_integer(number, 1, _MAX_NUMBER))
        except InvalidNumberError as error:
            cause = f"{NAME} is invalid: {shown(given)}, {error}"
            raise Problem(INVALID_IDEMPOTENCY_KEY, f"{cause}. Write {_USAGE}.") from None


def once(
    command: RepeatableCommand, key: IdempotencyKey | None, request: HttpRequest
) -> RepeatableCommand | Idempotent:
    """Return `command`, to be done at most once if there is a `key`."""
    if key is None:
        return command
    parts = [request.method, request.target, *(request.header(name) or "" for name in _CONDITIONS)]
    packed = b"\0".join(part.encode("utf-8", "surrogateescape") for part in parts) + b"\0" + request.body
    return Idempotent(key.lease, key.number, blake2b(packed, digest_size=16).digest(), command)


def refuse_key(request: HttpRequest) -> None:
    """Raise Problem for a key in a request that is safe to repeat without one: it must not be ignored."""
    if HEADER in request.headers:
        detail = f"This request is safe to repeat, and supports no {NAME}. Leave it out."
        raise Problem(INVALID_IDEMPOTENCY_KEY, detail)


async def write(replica: ReplicaService, command: Command) -> Result:
    """Return the result of `command`. Raises Problem or Refused if nothing was done."""
    result: Result = await reply_of(partial(replica.write, command))
    refuse_result(result)
    return result


def refuse_result(result: Result) -> None:
    """Raise the Problem for a `result` that says why nothing was done."""
    match result:
        case TooManyKeys():
            raise too_many_keys()
        case LeaseNotFound(lease=lease):
            raise no_such_lease(lease)
        case LeaseFull(lease=lease):
            detail = f"Nothing was done: lease {lease} already has {MAX_ATTACHED:,} keys and locks. Use another lease."
            raise Problem(LEASE_FULL, detail)
        case AnswerExpired():
            detail = (
                f"The lease in {NAME} has ended, or {KEPT:,} higher numbers were used. Nothing was done now, but an "
                "earlier attempt of this request may have been done: read the keys. For a new request use a new lease, "
                "or a higher number."
            )
            raise Problem(IDEMPOTENCY_KEY_EXPIRED, detail, outcome=Outcome.UNKNOWN)
        case IdempotencyKeyReused():
            detail = f"Nothing was done: another request had this {NAME}. Use a higher number."
            raise Problem(IDEMPOTENCY_KEY_REUSED, detail)
        case AnswerNotKept(revision=revision):
            detail = (
                f"The request was done before, at revision {revision}. Its result was too large to keep. Read the keys."
            )
            raise Problem(ANSWER_NOT_KEPT, detail, outcome=Outcome.UNKNOWN)
        case _:
            pass


def no_such_lease(lease: int) -> Problem:
    """Return 404 for a lease."""
    detail = f"Lease {lease} has ended, or never existed. POST /leases grants a new one."
    return Problem(NO_SUCH_LEASE, detail)
