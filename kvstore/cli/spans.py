"""`kvstore list | watch | txn`: many keys at once on the command line."""

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Column
from rich.text import Text

from kvstore.api.commands import Found
from kvstore.api.json import event_document, record_document, transacted_document
from kvstore.api.key_range import Span, starting_with
from kvstore.api.queries import Consistency
from kvstore.cli.keys import Revision
from kvstore.cli.output import show, shown, standard_output, table, write_json, write_line
from kvstore.cli.talking import CONDITION, DEFAULT, REJECTED, Endpoints, end, talk
from kvstore.client import Client, WatchEvent
from kvstore.server.http.problems import Problem
from kvstore.server.http.transaction_body import transaction_of

_VALUE_CHARS = 60

Prefix = Annotated[str, typer.Argument(help="What the keys begin with; all keys by default.")]
JsonLines = Annotated[bool, typer.Option("--json", help="An object on each line, for programs.")]


def list_(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[Consistency, typer.Option(help="How current it must be.")] = Consistency.LINEARIZABLE,
    revision: Revision = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most. --json has no limit.")] = 1000,
    *,
    json: JsonLines = False,
) -> None:
    """Show the keys that begin with PREFIX, as of one moment."""

    async def write(client: Client) -> None:
        with standard_output() as out:
            async for found in client.list(span_of(prefix), consistency, revision=revision):
                out.write(msgspec.json.encode(record_document(found)) + b"\n")

    async def draw(client: Client) -> bool:
        more = False
        rows = table(Column("key", overflow="fold"), "value", "revision", "version")
        async for found in client.list(span_of(prefix), consistency, revision=revision):
            if rows.row_count == limit:
                more = True
                break
            rows.add_row(*_row(found))
        show(rows)
        return more

    if json:
        talk(endpoints, write)
    elif talk(endpoints, draw):
        sys.stderr.write(f"kvstore: there are more than {limit:,}: raise --limit, or take --json\n")


def watch(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    from_revision: Annotated[int | None, typer.Option(min=1, help="Begin in the past. From now on by default.")] = None,
    *,
    json: JsonLines = False,
) -> None:
    """Tell each change of the keys that begin with PREFIX, until Ctrl-C. Goes on at another replica when one fails."""

    async def tell(client: Client) -> None:
        async for happened in client.watch(span_of(prefix), from_revision=from_revision):
            if json:
                write_line(_document(happened))
            else:
                show(_line(happened), soft_wrap=True)

    try:
        talk(endpoints, tell)
    except KeyboardInterrupt:
        raise typer.Exit from None


def txn(
    file: Annotated[str, typer.Argument(help="A file with the transaction in JSON, or - for standard input.")],
    endpoints: Endpoints = DEFAULT,
) -> None:
    """Do the transaction in FILE, as POST /txn takes it, and write what it gave, in JSON.

    Exit status 3: not done, repeat it. 4: it may have been done. 5: the compares did not hold, `else` was done.
    """
    try:
        command = transaction_of(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        end(OSError(f"{file} cannot be read: {error.strerror}"), REJECTED)
    except Problem as problem:
        end(problem, REJECTED)
    result = talk(endpoints, lambda client: client.txn(command))
    write_json(transacted_document(result))
    if not result.succeeded:
        raise typer.Exit(CONDITION)


def span_of(prefix: str) -> Span:
    """The keys that begin with what was typed."""
    return starting_with(os.fsencode(prefix))


def _row(found: Found) -> tuple[Text, Text, str, str]:
    record = found.record
    if record is None:
        raise TypeError(f"{found.key!r} was listed without a record")
    return Text(shown(found.key)), Text(shown(record.value, _VALUE_CHARS)), str(record.revision), str(record.version)


def _line(happened: WatchEvent) -> Text:
    key, record = shown(happened.key), happened.record
    line = Text(f"{happened.revision:>9} ", style="dim")
    if record is None:
        return line.append(f"delete {key}", style="red")
    return (
        line.append("put    ", style="green").append(key, style="bold").append(f"  {shown(record.value, _VALUE_CHARS)}")
    )


def _document(happened: WatchEvent) -> dict[str, object]:
    kind = "put" if happened.record is not None else "delete"
    return {"event": kind, **event_document(happened.key, happened.record, happened.revision)}
