"""How a command of a client is handed to the replica: once, where the client asks for that with `Idempotency-Key`.

The key is `<lease>.<number>`: a lease from `POST /leases`, and a number that grows with each new request; see
`kvstore.state_machine.idempotency`.
"""

import re
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from aiohttp import web

from kvstore.api.commands import (
    AnswerNotKept,
    Idempotent,
    KeepAlive,
    KeyExpired,
    KeyReused,
    LeaseFull,
    NoSuchLease,
    RepeatableCommand,
    Result,
    TooManyKeys,
)
from kvstore.api.errors import Outcome
from kvstore.server.http.asking import reply_of
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
from kvstore.server.service import Replica
from kvstore.state_machine.idempotency import KEPT
from kvstore.state_machine.leases import MOST_HELD

HEADER = "Idempotency-Key"
_KEY = re.compile(r'"?([1-9][0-9]{0,17})\.([1-9][0-9]{0,17})"?')
_CONDITIONS = ("If-Match", "If-None-Match")


class RequestId(NamedTuple):
    """By which a request is known again. `fingerprint`: of the request itself."""

    lease: int
    number: int
    fingerprint: bytes


def id_of(request: web.BaseRequest, body: bytes) -> RequestId | None:
    """The one that the client has given it, None when there is none. Raises Problem."""
    if HEADER not in request.headers:
        return None
    given = ", ".join(request.headers.getall(HEADER))
    found = _KEY.fullmatch(given.strip())
    if found is None:
        usage = "17.1: the lease that POST /leases gave, a dot, and a number from 1 that grows with each new request"
        raise Problem(INVALID_IDEMPOTENCY_KEY, f"{HEADER} cannot be understood: {given[:80]!r}. Write {usage}.")
    conditions = [", ".join(request.headers.getall(name, ())) for name in _CONDITIONS]
    parts = [request.method, request.raw_path, *conditions]
    packed = b"\0".join(part.encode("utf-8", "surrogateescape") for part in parts) + b"\0" + body
    return RequestId(int(found[1]), int(found[2]), blake2b(packed, digest_size=16).digest())


def refuse_id(request: web.BaseRequest) -> None:
    """For what may be repeated without. Raises Problem: to ignore it would do what was not asked for."""
    if HEADER in request.headers:
        detail = f"This may be repeated without harm, and takes no {HEADER}. Leave it out."
        raise Problem(INVALID_IDEMPOTENCY_KEY, detail)


async def write(replica: Replica, command: RepeatableCommand | KeepAlive, request_id: RequestId | None) -> Result:
    """What `command` gives. Raises Problem or Refused for what was not done."""
    if request_id is not None and not isinstance(command, KeepAlive):
        lease, number, fingerprint = request_id
        result: Result = await reply_of(partial(replica.write, Idempotent(lease, number, fingerprint, command)))
    else:
        result = await reply_of(partial(replica.write, command))
    problem = _problem(result)
    if problem is not None:
        raise problem
    return result


def _problem(result: Result) -> Problem | None:
    match result:
        case TooManyKeys():
            return too_many_keys()
        case NoSuchLease(lease=lease):
            return no_such_lease(lease)
        case LeaseFull(lease=lease):
            detail = f"Nothing was done: lease {lease} has {MOST_HELD:,} keys or locks already. Use another one."
            return Problem(LEASE_FULL, detail)
        case KeyExpired():
            detail = (
                f"The lease in {HEADER} is over, or {KEPT:,} later numbers were used since. Nothing was done now; if "
                "this request was sent before, look whether it was done then. For a new one take a new lease, or a "
                "higher number."
            )
            return Problem(IDEMPOTENCY_KEY_EXPIRED, detail, outcome=Outcome.UNKNOWN)
        case KeyReused():
            detail = f"Nothing was done: another request had this {HEADER}. Use the next number."
            return Problem(IDEMPOTENCY_KEY_REUSED, detail)
        case AnswerNotKept(revision=revision):
            detail = f"It was done before, at revision {revision}; its answer was too long to be kept. Read the keys."
            return Problem(ANSWER_NOT_KEPT, detail, outcome=Outcome.UNKNOWN)
        case _:
            return None


def no_such_lease(lease: int) -> Problem:
    """404."""
    detail = f"Lease {lease} is over, or never was. POST /leases gives another."
    return Problem(NO_SUCH_LEASE, detail)
