"""`kvstore get | put | delete | status`: the client on the command line."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, NoReturn, TypeVar

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from kvstore.client import (
    DEFAULT_ENDPOINTS,
    Client,
    ConditionFailed,
    NoSuchMember,
    Rejected,
    Unavailable,
    UnknownOutcome,
)
from kvstore.ranges import starting_with
from kvstore.requests import Consistency, Status

ABSENT = 1
REJECTED = 2
UNAVAILABLE = 3
UNKNOWN = 4
CONDITION = 5

T = TypeVar("T")

Endpoints = Annotated[
    str,
    typer.Option(envvar="KVSTORE_ENDPOINTS", metavar="URL,...", help="Base addresses of the replicas, with commas."),
]
Key = Annotated[str, typer.Argument(help="The key, 1 to 1024 bytes.")]
Revision = Annotated[int | None, typer.Option(min=1, help="As of this revision of the store.")]
IfRevision = Annotated[int | None, typer.Option(min=1, help="Only while the key is at this revision.")]
DEFAULT = ",".join(DEFAULT_ENDPOINTS)
"""What `Endpoints` are where nobody names any."""


def get(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[Consistency, typer.Option(help="How current the value must be.")] = Consistency.LINEARIZABLE,
    revision: Revision = None,
) -> None:
    """Write the value of KEY to standard output, byte for byte. Exit status 1 when it is absent."""
    record = talk(endpoints, lambda client: client.get(os.fsencode(key), consistency, revision=revision))
    if record is None:
        _absent(key)
    else:
        sys.stdout.buffer.write(record.value)
        sys.stdout.buffer.flush()


def put(
    key: Key,
    value: Annotated[str, typer.Argument(help="The value, or - to read it from standard input.")],
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    *,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if there is no such key.")] = False,
) -> None:
    """Set KEY to VALUE. Exit status 3: not done, repeat it. 4: it may have been done. 5: the condition failed."""
    content = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    name = os.fsencode(key)
    result = talk(endpoints, lambda client: client.put(name, content, if_revision=if_revision, if_absent=if_absent))
    sys.stdout.write(f"revision {result.revision}, version {result.version}\n")


def delete(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    *,
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY, in one revision.")] = False,
) -> None:
    """Remove KEY. Exit status 1 when it is absent. 3: not done, repeat it. 4: it may have been done. 5: the condition
    does not hold."""
    name = os.fsencode(key)
    if prefix:
        deleted = talk(endpoints, lambda client: client.delete_span(starting_with(name)))
        sys.stdout.write(f"revision {deleted.revision}, deleted {deleted.deleted:,} keys\n")
        return
    result = talk(endpoints, lambda client: client.delete(name, if_revision=if_revision))
    if result is None:
        _absent(key)
    else:
        sys.stdout.write(f"revision {result.revision}, deleted version {result.version}\n")


def status(
    endpoints: Endpoints = DEFAULT,
    *,
    json: Annotated[bool, typer.Option("--json", help="All that the replicas tell, as JSON.")] = False,
) -> None:
    """Show every replica. Exit status 3 when none answers."""
    answers = talk(endpoints, _ask_all)
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(answers), indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        Console().print(_table(answers))
    if not any(isinstance(answer, Status) for answer in answers.values()):
        raise typer.Exit(UNAVAILABLE)


async def _ask_all(client: Client) -> dict[str, Status | str]:
    """Each endpoint's status, or why there is none."""

    async def ask(endpoint: str) -> Status | str:
        try:
            return await client.status(endpoint)
        except Unavailable as error:
            return str(error)

    return dict(zip(client.endpoints, await asyncio.gather(*map(ask, client.endpoints)), strict=True))


def _table(answers: dict[str, Status | str]) -> Table:
    table = Table(
        "replica",
        "role",
        "ballot",
        "lease",
        "applied",
        "keys",
        "peers",
        Column("endpoint", no_wrap=True),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for endpoint, answer in answers.items():
        where = endpoint.removeprefix("http://")
        if isinstance(answer, str):
            table.add_row("", "[red]no answer[/red]", "", "", "", "", "", where)
            continue
        connected = sum(member.connected for member in answer.members if member.name != answer.id)
        table.add_row(
            answer.id,
            _role(answer),
            answer.ballot,
            "" if answer.lease_left_ms is None else f"{answer.lease_left_ms:.0f} ms",
            str(answer.applied),
            str(answer.keys),
            f"{connected} of {len(answer.members) - 1}",
            where,
        )
    return table


def _role(status: Status) -> str:
    if not status.ready:
        return f"[red]{status.role}, not ready[/red]"
    return f"[green]{status.role}[/green]" if status.role == "leader" else status.role


def talk(endpoints: str, call: Callable[[Client], Awaitable[T]]) -> T:
    """The result of `call`; an error becomes its line and its exit status."""

    async def run() -> T:
        async with Client(_split(endpoints), exactly_once=False) as client:  # a command is one request
            return await call(client)

    try:
        return asyncio.run(run())
    except NoSuchMember as error:
        end(error, ABSENT)
    except ConditionFailed as error:
        end(error, CONDITION)
    except (ValueError, Rejected) as error:
        end(error, REJECTED)
    except Unavailable as error:
        end(error, UNAVAILABLE)
    except UnknownOutcome as error:
        end(error, UNKNOWN)


def _split(endpoints: str) -> list[str]:
    return [endpoint.strip() for endpoint in endpoints.split(",") if endpoint.strip()]


def end(error: Exception, code: int) -> NoReturn:
    """Say why, and end."""
    sys.stderr.write(f"kvstore: {error}\n")
    raise typer.Exit(code) from error


def _absent(key: str) -> NoReturn:
    sys.stderr.write(f"kvstore: {key!r} is absent\n")
    raise typer.Exit(ABSENT)
