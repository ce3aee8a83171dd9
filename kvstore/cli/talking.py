"""What every command that talks to a cluster has: whom it asks, and the exit status of each way to fail."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, NoReturn, TypeVar

import typer

from kvstore.client import (
    DEFAULT_ENDPOINTS,
    Client,
    ConditionFailed,
    Locked,
    LockLost,
    NoSuchLease,
    NoSuchMember,
    Rejected,
    Unavailable,
    UnknownOutcome,
)

ABSENT = 1
FAILED = 1
"""Of commands that ask for nothing that could be absent."""
REJECTED = 2
UNAVAILABLE = 3
UNKNOWN = 4
CONDITION = 5

T = TypeVar("T")

Endpoints = Annotated[
    str,
    typer.Option(envvar="KVSTORE_ENDPOINTS", metavar="URL,...", help="Base addresses of the replicas, with commas."),
]
DEFAULT = ",".join(DEFAULT_ENDPOINTS)
"""What `Endpoints` are where nobody names any."""


def talk(endpoints: str, call: Callable[[Client], Awaitable[T]], *, exactly_once: bool = False) -> T:
    """The result of `call`; an error becomes its line and its exit status."""

    async def run() -> T:
        async with client_of(endpoints, exactly_once=exactly_once) as client:
            return await call(client)

    try:
        return asyncio.run(run())
    except (NoSuchMember, NoSuchLease) as error:
        end(error, ABSENT)
    except (ConditionFailed, LockLost, Locked) as error:
        end(error, CONDITION)
    except (ValueError, Rejected) as error:
        end(error, REJECTED)
    except Unavailable as error:
        end(error, UNAVAILABLE)
    except UnknownOutcome as error:
        end(error, UNKNOWN)


def client_of(endpoints: str, *, exactly_once: bool = False, timeout_ms: int = 10_000) -> Client:
    """A client of those that are named, with commas. Raises ValueError. `exactly_once` is for commands that write more
    than once: it takes a lease."""
    urls = [endpoint.strip() for endpoint in endpoints.split(",") if endpoint.strip()]
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url} is no base address: give --endpoints like http://127.0.0.1:8001")
    return Client(urls, exactly_once=exactly_once, timeout_ms=timeout_ms)


def end(error: Exception, code: int) -> NoReturn:
    """Say why, and end."""
    sys.stderr.write(f"kvstore: {error}\n")
    raise typer.Exit(code) from error
