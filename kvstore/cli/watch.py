"""`kvstore watch`."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from kvstore.api.json.documents import event_document
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.keys import VALUE_CHARS, JsonLines, Prefix, span_of
from kvstore.cli.outage import Outage
from kvstore.cli.output import printable, write_json_line
from kvstore.cli.parameters import revision_number
from kvstore.cli.terminal import show
from kvstore.client import Client, WatchEvent


def watch(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    from_revision: Annotated[
        int | None,
        typer.Option(
            parser=revision_number, metavar="N", help="Begin with this past revision; by default with new changes."
        ),
    ] = None,
    *,
    json: JsonLines = False,
) -> None:
    """Print changes of keys as they happen.

    Runs until Ctrl-C, with exit status 0. If a replica fails, the watch continues at another one without a gap. If no
    replica answers, a message says so, and the watch continues as soon as one does. Exit status 2: changes that were
    not printed are no longer in the history.
    """

    async def follow(client: Client) -> None:
        watching = client.watch(span_of(prefix), from_revision=from_revision, on_outage=Outage().report)
        async for event in watching:
            if json:
                kind = "put" if event.record is not None else "delete"
                document = event_document(event.key, event.record, event.revision)
                write_json_line({"event": kind, **msgspec.to_builtins(document)})
            else:
                show(_line(event), soft_wrap=True)

    try:
        with_client(endpoints, follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _line(event: WatchEvent) -> Text:
    key, record = printable(event.key), event.record
    line = Text(f"{event.revision:>9} ", style="dim")
    if record is None:
        return line.append(f"delete {key}", style="red")
    line.append("put    ", style="green").append(key, style="bold")
    return line.append(f"  {printable(record.value, VALUE_CHARS)}")
