"""`kvstore watch`."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from kvstore.api.json.documents import event_document
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.keys import VALUE_CHARS, JsonLines, Prefix, span_of
from kvstore.cli.output import printable, write_json_line
from kvstore.cli.terminal import show
from kvstore.client import Client, WatchEvent


def watch(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    from_revision: Annotated[
        int | None, typer.Option(min=1, help="Begin with the changes of this past revision; without it with new ones.")
    ] = None,
    *,
    json: JsonLines = False,
) -> None:
    """Print changes of keys as they happen.

    Until Ctrl-C; if a replica fails, the watch continues at another one without a gap.
    """

    async def follow(client: Client) -> None:
        async for happened in client.watch(span_of(prefix), from_revision=from_revision):
            if json:
                kind = "put" if happened.record is not None else "delete"
                document = event_document(happened.key, happened.record, happened.revision)
                write_json_line({"event": kind, **msgspec.to_builtins(document)})
            else:
                show(_line(happened), soft_wrap=True)

    try:
        with_client(endpoints, follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _line(happened: WatchEvent) -> Text:
    key, record = printable(happened.key), happened.record
    line = Text(f"{happened.revision:>9} ", style="dim")
    if record is None:
        return line.append(f"delete {key}", style="red")
    line.append("put    ", style="green").append(key, style="bold")
    return line.append(f"  {printable(record.value, VALUE_CHARS)}")
