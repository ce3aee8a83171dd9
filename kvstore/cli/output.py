"""Output for programs and pipes: bytes, JSON and lines of text.

A command ends without an error message when its reader closes the pipe, as in `kvstore list | head`.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO

import msgspec
import orjson
import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

READER_GONE = 128 + signal.SIGPIPE
"""Exit status that a shell reports for a program killed by SIGPIPE."""


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Provide standard output as a binary file, and flush it at the end."""
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit(READER_GONE) from None


def write_text(text: str) -> None:
    """Write one line of text, without markup or wrapping."""
    with standard_output() as out:
        out.write(f"{text}\n".encode(sys.stdout.encoding, "backslashreplace"))


def write_json(document: Any) -> None:
    """Write a document as indented JSON."""
    with standard_output() as out:
        out.write(orjson.dumps(msgspec.to_builtins(document), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_json_line(document: Any) -> None:
    """Write a document as one line of JSON, and flush it."""
    with standard_output() as out:
        out.write(msgspec.json.encode(document) + b"\n")
        out.flush()


def count_of_keys(count: int) -> str:
    """Return `count` with its noun: `1 key`, `1,024 keys`."""
    return "1 key" if count == 1 else f"{count:,} keys"


def printable(content: bytes, most_chars: int | None = None) -> str:
    """Return `content` as one line without control characters, truncated to `most_chars`."""
    text = content.decode(errors="backslashreplace")
    cut = text if most_chars is None else text[: most_chars + 1]
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)
    if most_chars is None or len(escaped) <= most_chars:
        return escaped
    return escaped[: most_chars - 1] + "…"
