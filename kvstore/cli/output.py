"""What commands write: bytes and JSON for programs, tables for people. A reader that goes away ends a command
quietly, as `kvstore list | head` does."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Column, Table

Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]

READER_GONE = 128 + signal.SIGPIPE
"""Exit status of any program that was writing to somebody who is gone."""


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """For bytes; all of them have left at the end."""
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit(READER_GONE) from None


def write_json(document: Any) -> None:
    """One document, in lines for whoever reads it too."""
    with standard_output() as out:
        out.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def write_line(document: Any) -> None:
    """One document on a line of its own, at once."""
    with standard_output() as out:
        out.write(msgspec.json.encode(document) + b"\n")
        out.flush()


def show(what: RenderableType, *, soft_wrap: bool = False) -> None:
    """For people: as wide as the terminal, in colour where that is one. `soft_wrap`: lines as long as they are."""
    console = Console(soft_wrap=soft_wrap, highlight=False)
    with console.capture() as captured:
        console.print(what)
    with standard_output() as out:
        out.write(captured.get().encode(console.encoding, "backslashreplace"))


def table(*columns: Column | str, title: str | None = None) -> Table:
    """As all commands have it."""
    return Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")


def keys_in_words(count: int) -> str:
    """How many keys."""
    return "1 key" if count == 1 else f"{count:,} keys"


def shown(content: bytes, most_chars: int | None = None) -> str:
    """In one line, without what would move the cursor; cut off behind `most_chars`."""
    text = content.decode(errors="backslashreplace")
    cut = text if most_chars is None else text[: most_chars + 1]
    printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)
    if most_chars is None or len(printable) <= most_chars:
        return printable
    return printable[: most_chars - 1] + "…"
