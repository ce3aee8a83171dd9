"""The client of a command: the option --endpoints, and the message and exit status of each client error."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple, TypeVar

import typer

from kvstore.api.address import InvalidAddressError, parse_base_urls
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import printable
from kvstore.client import (
    DEFAULT_ENDPOINTS,
    Client,
    ClientError,
    ConditionFailed,
    FencingToken,
    Locked,
    LockLost,
    NoSuchLease,
    NoSuchMember,
    Rejected,
    Unavailable,
    UnknownOutcome,
)

NO_REPLICA_ANSWERS = "no replica answers: start the replicas, or name others with --endpoints"

T = TypeVar("T")

Endpoints = Annotated[
    str,
    typer.Option(
        envvar="KVSTORE_ENDPOINTS",
        metavar="URL,...",
        help="Base URLs of replicas, separated by commas.",
        show_default="http://127.0.0.1:8001, :8002 and :8003",
    ),
]
DEFAULT = ",".join(DEFAULT_ENDPOINTS)
"""The default of `Endpoints`."""


class Subject(NamedTuple):
    """The objects of a request, which messages about errors name."""

    key: bytes | None = None
    lease: int | None = None
    fence: FencingToken | None = None


_NO_SUBJECT = Subject()


def with_client(
    endpoints: str,
    call: Callable[[Client], Awaitable[T]],
    *,
    exactly_once: bool = False,
    subject: Subject = _NO_SUBJECT,
) -> T:
    """Return the result of `call`. A client error ends the command with the message and exit status of that error."""

    async def run() -> T:
        async with client_of(endpoints, exactly_once=exactly_once) as client:
            return await call(client)

    try:
        return asyncio.run(run())
    except (NoSuchMember, NoSuchLease) as error:
        fail(_message(error, subject), ExitStatus.FAILED)
    except (ConditionFailed, LockLost, Locked) as error:
        fail(_message(error, subject), ExitStatus.CONDITION)
    except (ValueError, Rejected) as error:
        fail(error, ExitStatus.USAGE)
    except Unavailable as error:
        fail(error, ExitStatus.UNAVAILABLE)
    except UnknownOutcome as error:
        fail(error, ExitStatus.UNKNOWN)


def _message(error: ClientError, subject: Subject) -> str:
    """Return the message of `error`, in terms of the command line where the replica's message is about HTTP."""
    key, lease, fence = subject
    if isinstance(error, NoSuchLease) and lease is not None:
        return f"lease {lease} does not exist or has expired: grant one with `kvstore lease grant`"
    if isinstance(error, LockLost) and fence is not None:
        lock = printable(fence.lock)
        return (
            f"nothing was done: lock '{lock}' is no longer held with fencing token {fence.token}; take the lock again"
        )
    if isinstance(error, ConditionFailed) and key is not None:
        name, revision = printable(key), error.revision
        if revision is None:
            return f"nothing was done: key '{name}' does not exist; create it with --if-absent"
        repeat = f"read it with `kvstore get`, then repeat with --if-revision {revision}"
        return f"nothing was done: key '{name}' is at revision {revision}; {repeat}"
    return str(error)


def client_of(endpoints: str, *, exactly_once: bool = False, timeout_ms: int = 10_000) -> Client:
    """Return a client of `endpoints`. Raises InvalidAddressError.

    `exactly_once` takes a lease for idempotency keys, so it is for commands that send many writes.
    """
    try:
        urls = parse_base_urls(endpoints.split(","))
    except InvalidAddressError as error:
        raise InvalidAddressError(f"--endpoints: {error}, with one comma between several") from None
    return Client(urls, exactly_once=exactly_once, timeout_ms=timeout_ms)
