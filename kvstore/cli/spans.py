"""`kvstore list | watch | txn`: many keys at once on the command line."""

import os
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from kvstore.cli.keys import DEFAULT, REJECTED, Endpoints, Revision, end, talk
from kvstore.client import Client, Happened
from kvstore.commands import Found
from kvstore.http.documents import event_document, record_document, transacted_document
from kvstore.http.problems import Problem
from kvstore.http.transaction_body import transaction_of
from kvstore.ranges import Span, starting_with
from kvstore.requests import Consistency

_SHOWN_CHARS = 60

Prefix = Annotated[str, typer.Argument(help="What the keys begin with; all keys by default.")]
Json = Annotated[bool, typer.Option("--json", help="An object on each line, for programs.")]


def list_(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[Consistency, typer.Option(help="How current it must be.")] = Consistency.LINEARIZABLE,
    revision: Revision = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most. --json has no limit.")] = 1000,
    *,
    json: Json = False,
) -> None:
    """Show the keys that begin with PREFIX, as of one moment."""

    async def show(client: Client) -> None:
        table = Table(
            Column("key", overflow="fold"), "value", "revision", "version", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        more = False
        async for found in client.list(_span(prefix), consistency, revision=revision):
            if json:
                _write(record_document(found))
            elif table.row_count == limit:
                more = True
                break
            else:
                table.add_row(*_row(found))
        if not json:
            Console().print(table)
        if more:
            sys.stderr.write(f"kvstore: there are more than {limit:,}: raise --limit, or take --json\n")

    talk(endpoints, show)


def watch(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    from_revision: Annotated[int | None, typer.Option(min=1, help="Begin in the past. From now on by default.")] = None,
    *,
    json: Json = False,
) -> None:
    """Tell each change of the keys that begin with PREFIX, until Ctrl-C. Goes on at another replica when one fails."""
    console = Console()

    async def show(client: Client) -> None:
        async for happened in client.watch(_span(prefix), from_revision=from_revision):
            if json:
                _write(_document(happened))
                sys.stdout.flush()
            else:
                console.print(_line(happened))

    try:
        talk(endpoints, show)
    except KeyboardInterrupt:
        raise typer.Exit from None


def txn(
    file: Annotated[str, typer.Argument(help="A file with the transaction in JSON, or - for standard input.")],
    endpoints: Endpoints = DEFAULT,
) -> None:
    """Do the transaction in FILE, as POST /txn takes it, and write what it gave. Exit status 3: not done, repeat it. 4:
    it may have been done."""
    try:
        command = transaction_of(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        end(error, REJECTED)
    except Problem as problem:
        end(problem, REJECTED)
    result = talk(endpoints, lambda client: client.txn(command))
    sys.stdout.buffer.write(orjson.dumps(transacted_document(result), option=orjson.OPT_INDENT_2) + b"\n")


def _span(prefix: str) -> Span:
    return starting_with(os.fsencode(prefix))


def _row(found: Found) -> tuple[Text, Text, str, str]:
    record = found.record
    if record is None:
        raise TypeError(f"{found.key!r} was listed without a record")
    return Text(_shown(found.key)), Text(_shown(record.value)), str(record.revision), str(record.version)


def _line(happened: Happened) -> Text:
    key, record = _shown(happened.key), happened.record
    line = Text(f"{happened.revision:>9} ", style="dim")
    if record is None:
        return line.append(f"delete {key}", style="red")
    return line.append("put    ", style="green").append(key, style="bold").append(f"  {_shown(record.value)}")


def _shown(content: bytes) -> str:
    """In one line, without what would move the cursor."""
    text = content.decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: _SHOWN_CHARS + 1])
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _document(happened: Happened) -> dict[str, object]:
    kind = "put" if happened.record is not None else "delete"
    return {"event": kind, **event_document(happened.key, happened.record, happened.revision)}


def _write(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
